//! The memory that a copy of the supervisor has no use for.
//!
//! A page of the heap that the supervisor writes to after the clone exists twice from then on: once
//! for it, once for the pod's holder, which will never look at it again.

use std::ffi::c_void;

/// Parts of the address space: the heap and what was mapped beside it.
pub(crate) struct Ballast {
    parts: [(usize, usize); MOST],
    count: usize,
}

const MOST: usize = 64;

impl Ballast {
    /// Found by the supervisor. Never the stack that this is called on, the thread's own variables,
    /// nor anything that belongs to the program's file.
    pub(crate) fn find() -> Self {
        let here = 0_u8;
        // SAFETY: only its address is taken: it lies among the thread's own variables.
        let own = unsafe { libc::__errno_location() } as usize;
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let mut ballast = Self {
            parts: [(0, 0); MOST],
            count: 0,
        };
        for part in parts(&maps, (&raw const here) as usize, own) {
            if let Some(place) = ballast.parts.get_mut(ballast.count) {
                *place = part;
                ballast.count += 1;
            }
        }
        ballast
    }

    /// Gives it back to the kernel.
    ///
    /// # Safety
    /// Nothing that lies there is looked at any more: no allocated memory at all. This structure
    /// itself is on the stack.
    pub(crate) unsafe fn drop_it(&self) {
        for (start, end) in self.parts.iter().take(self.count) {
            // SAFETY: the caller's promise; a part that is not there any more is an error only.
            unsafe { libc::madvise(*start as *mut c_void, end - start, libc::MADV_DONTNEED) };
        }
    }
}

/// What is kept on both sides of a thread's own variables, which may lie in one mapping with
/// allocated memory: they take a few thousand bytes.
const AROUND: usize = 64 << 10;

/// Private, writable, of no file, without the stack and the thread's own variables; and not behind
/// a file's part, where a program's zeroed variables are.
fn parts(maps: &str, stack: usize, own: usize) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut end_of_file = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let range = words.next().and_then(|range| {
            let (start, end) = range.split_once('-')?;
            Some((
                usize::from_str_radix(start, 16).ok()?,
                usize::from_str_radix(end, 16).ok()?,
            ))
        });
        let (Some((start, end)), Some(rights), Some(inode)) = (range, words.next(), words.nth(2))
        else {
            continue;
        };
        let name = words.next().unwrap_or_default();
        if inode != "0" || start == end_of_file {
            end_of_file = end;
            continue;
        }
        let anonymous = matches!(name, "" | "[heap]") || name.starts_with("[anon:");
        if rights != "rw-p" || !anonymous || (start..end).contains(&stack) {
            continue;
        }
        if (start..end).contains(&own) {
            let own = own & !(PAGE - 1);
            found.extend([
                (start, own.saturating_sub(AROUND).max(start)),
                ((own + AROUND).min(end), end),
            ]);
        } else {
            found.push((start, end));
        }
    }
    found.retain(|(start, end)| start < end);
    found
}

/// The largest that a kernel uses: what is a multiple of it is one of every smaller one.
const PAGE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heap_is_found_and_nothing_else() {
        let maps = "\
00400000-00500000 r-xp 00000000 08:01 77 /bin/x
00500000-00501000 rw-p 00100000 08:01 77 /bin/x
00501000-00503000 rw-p 00000000 00:00 0
01000000-01100000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000001000 rw-p 00000000 00:00 0
7f0000001000-7f0000002000 r--p 00000000 00:00 0
7f0000003000-7f0000004000 rw-s 00000000 00:01 9 /memfd:x
7f0000005000-7f0000006000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00020000 rw-p 00000000 00:00 0 [stack]
7ffc00030000-7ffc00034000 r--p 00000000 00:00 0 [vvar]
";
        assert_eq!(
            parts(maps, 0x7ffc_0000_0100, 0x7f00_0000_5010),
            [
                (0x100_0000, 0x110_0000),
                (0x7f00_0000_0000, 0x7f00_0000_1000)
            ]
        );
    }

    #[test]
    fn a_threads_variables_are_spared_inside_of_a_large_part() {
        let maps = "7f0000000000-7f0001000000 rw-p 00000000 00:00 0\n";
        assert_eq!(
            parts(maps, 0, 0x7f00_0080_0010),
            [
                (0x7f00_0000_0000, 0x7f00_007f_0000),
                (0x7f00_0081_0000, 0x7f00_0100_0000)
            ]
        );
        assert_eq!(parts(maps, 0x7f00_0080_0010, 0), []);
    }
}
