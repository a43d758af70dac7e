//! The memory that a copy of the supervisor has no use for: all but the instructions by which the
//! pod's holder waits.
//!
//! A page that the supervisor writes to after the clone exists twice from then on: once for it, once
//! for the holder, which will never look at it again. The tables by which the kernel finds the pages
//! exist twice from the beginning.

mod wait;

use std::ops::Range;

/// Parts of the address space, by start and length as munmap takes them: all of it but what stays.
/// It lies on the stack and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ballast {
    parts: [(usize, usize); MOST],
    count: usize,
    /// The one with the stack that this was found on: it goes last.
    stack: (usize, usize),
}

/// More than the few things that stay can leave between them.
const MOST: usize = 16;

impl Ballast {
    /// Found by the supervisor, on the stack on which the copy will go on. Nothing, where /proc does
    /// not tell.
    pub(crate) fn find() -> Self {
        let here = 0_u8;
        // SAFETY: only its address is taken: it lies among the thread's own variables.
        let own = unsafe { libc::__errno_location() } as usize;
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let kept = Kept {
            instructions: wait::instructions(),
            arguments: arguments(&read("/proc/self/stat")),
            // glibc has told the kernel of a place there that it writes to (rseq(2)); musl has not.
            own: cfg!(target_env = "gnu").then_some(own),
            page: rustix::param::page_size(),
        };
        parts(&read("/proc/self/maps"), &kept, (&raw const here) as usize)
    }

    const fn nothing() -> Self {
        Self {
            parts: [(0, 0); MOST],
            count: 0,
            stack: (0, 0),
        }
    }

    fn add(&mut self, part: Range<usize>, stack: usize) {
        let pair = (part.start, part.len());
        if part.contains(&stack) {
            self.stack = pair;
        } else if !part.is_empty()
            && let Some(place) = self.parts.get_mut(self.count)
        {
            *place = pair;
            self.count += 1;
        }
    }

    /// Gives it back to the kernel, says over descriptor 0 that the pod is held, closes every
    /// descriptor, and waits for SIGTERM or SIGINT to end with status 0. Ends with 125 at once where
    /// nobody listens.
    ///
    /// # Safety
    /// In a copy of the process in which it was found, on the same stack and with one thread. No
    /// signal has a handler, and both signals are blocked.
    pub(crate) unsafe fn drop_it_and_wait(&self) -> ! {
        let parts = self.parts.get(..self.count).unwrap_or_default();
        // SAFETY: the caller's promise; the list is on the stack that goes last.
        unsafe { wait::without(parts, self.stack) }
    }
}

/// What stays.
struct Kept {
    /// The last instructions.
    instructions: Range<usize>,
    /// The command line, by which people tell processes apart. The first program of the supervisor
    /// put it there and nobody writes to it.
    arguments: Range<usize>,
    /// An address among the thread's own variables.
    own: Option<usize>,
    /// The size of a page.
    page: usize,
}

/// How much stays on both sides of an address among the thread's own variables.
const AROUND: usize = 64 << 10;

impl Kept {
    /// The part of a mapping that stays.
    fn of(&self, mapping: &Range<usize>, name: &str) -> Option<Range<usize>> {
        // The kernel's own (`[vdso]`), which cannot be taken away everywhere.
        let kernels = name.starts_with('[')
            && !matches!(name, "[heap]" | "[stack]")
            && !name.starts_with("[anon");
        if kernels {
            return Some(mapping.clone());
        }
        let around = self.own.map_or(0..0, |own| own - AROUND..own + AROUND);
        [&self.instructions, &self.arguments, &around]
            .into_iter()
            .filter(|kept| !kept.is_empty())
            .map(|kept| {
                let start = kept.start / self.page * self.page;
                let end = kept.end.next_multiple_of(self.page);
                start.max(mapping.start)..end.min(mapping.end)
            })
            .find(|kept| !kept.is_empty())
    }
}

/// All that is mapped but what stays, with the holes between. Nothing, where the instructions are
/// not found.
fn parts(maps: &str, kept: &Kept, stack: usize) -> Ballast {
    let mut ballast = Ballast::nothing();
    let mut begin = None;
    let mut end = 0;
    let mut found = false;
    for (mapping, name) in mappings(maps) {
        let start = *begin.get_or_insert(mapping.start);
        found |= mapping.contains(&kept.instructions.start);
        if let Some(stays) = kept.of(&mapping, name) {
            // Not the hole before it: the kernel's may lie beyond all that a process can unmap.
            let until = if stays.start == mapping.start {
                end
            } else {
                stays.start
            };
            ballast.add(start..until, stack);
            begin = Some(stays.end);
        }
        end = mapping.end;
    }
    ballast.add(begin.unwrap_or(end)..end, stack);
    if found { ballast } else { Ballast::nothing() }
}

/// Ranges and names of `/proc/PID/maps` (proc_pid_maps(5)).
fn mappings(maps: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(start)?..number(end)?, words.nth(4).unwrap_or("")))
    })
}

/// Where the command line is: `arg_start` and `arg_end` of `/proc/PID/stat` (proc_pid_stat(5)).
fn arguments(stat: &str) -> Range<usize> {
    // The second field is the name in brackets and may hold anything.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let mut fields = after.split_ascii_whitespace().skip(48 - 3);
    let mut address = || fields.next().and_then(|field| field.parse().ok());
    match (address(), address()) {
        (Some(start), Some(end)) => start..end,
        _ => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
00400000-00500000 r-xp 00000000 08:01 77 /bin/x
00500000-00501000 rw-p 00100000 08:01 77 /bin/x
01000000-01100000 rw-p 00000000 00:00 0 [heap]
7f0000003000-7f0000004000 rw-s 00000000 00:01 9 /memfd:x
7f0000100000-7f0000200000 rw-p 00000000 00:00 0
7ffc00000000-7ffc00020000 rw-p 00000000 00:00 0 [stack]
7ffc00030000-7ffc00034000 r--p 00000000 00:00 0 [vvar]
7ffc00034000-7ffc00036000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";

    const STACK: usize = 0x7ffc_0001_0010;

    fn kept() -> Kept {
        Kept {
            instructions: 0x40_1234..0x40_1334,
            arguments: 0x7ffc_0001_e100..0x7ffc_0001_e200,
            own: None,
            page: 0x1000,
        }
    }

    fn of(maps: &str, kept: &Kept) -> Vec<(usize, usize)> {
        let ballast = parts(maps, kept, STACK);
        let mut all = ballast.parts[..ballast.count].to_vec();
        all.push(ballast.stack);
        all
    }

    #[test]
    fn all_goes_but_instructions_and_command_line_and_the_stack_goes_last() {
        assert_eq!(
            of(MAPS, &kept()),
            [
                (0x40_0000, 0x1000),
                (0x7ffc_0001_f000, 0x1000),
                (0x40_2000, 0x7ffc_0001_e000 - 0x40_2000),
            ]
        );
    }

    #[test]
    fn the_threads_own_variables_stay_where_the_kernel_writes_to_them() {
        let kept = Kept {
            own: Some(0x7f00_0018_0010),
            ..kept()
        };
        let all = of(MAPS, &kept);
        assert_eq!(all[1], (0x40_2000, 0x7f00_0017_0000 - 0x40_2000));
        assert_eq!(
            all.last(),
            Some(&(0x7f00_0019_1000, 0x7ffc_0001_e000 - 0x7f00_0019_1000))
        );
    }

    #[test]
    fn nothing_goes_where_the_instructions_are_not_found() {
        let elsewhere = Kept {
            instructions: 0x30_0000..0x30_0100,
            ..kept()
        };
        assert_eq!(of(MAPS, &elsewhere), [(0, 0)]);
        assert_eq!(of("", &kept()), [(0, 0)]);
    }

    #[test]
    fn the_command_line_is_found() {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("readable");
        assert!(!arguments(&stat).is_empty());
        assert!(arguments("1 (x) y) S 1").is_empty());
    }
}
