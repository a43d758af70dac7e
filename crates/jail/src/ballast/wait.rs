//! The last instructions of the pod's holder, which use neither stack nor variables: both are gone.

use std::arch::asm;

use crate::wire::HOLDING;

/// SIGTERM and SIGINT as the kernel counts them in a set (`sigset_t`).
const ENDING: u64 = 1 << (libc::SIGTERM - 1) | 1 << (libc::SIGINT - 1);
/// The size of that set, in bytes.
const SET: usize = size_of::<u64>();
/// The status of a process that could not do its part.
const FAILED: i32 = 125;

/// More than the instructions take, in bytes.
const MOST: usize = 1024;

/// Where they are.
pub(super) fn instructions() -> std::ops::Range<usize> {
    let start = without as *const () as usize;
    start..start + MOST
}

/// Instructions after which nothing comes, with the numbers of what they ask the kernel for.
macro_rules! last {
    ($($line:literal),+ $(,)? ; $($register:tt = $value:expr),+) => {
        asm!(
            $($line,)+
            munmap = const libc::SYS_munmap,
            write = const libc::SYS_write,
            close_range = const libc::SYS_close_range,
            wait = const libc::SYS_rt_sigtimedwait,
            exit = const libc::SYS_exit_group,
            set = const SET,
            ending = const ENDING,
            interrupted = const libc::EINTR,
            failed = const FAILED,
            holding = const HOLDING,
            $(in($register) $value,)+
            options(noreturn),
        )
    };
}

/// Unmaps the parts and at last the stack; what then happens [`super::Ballast::drop_it_and_wait`]
/// tells. A part that cannot be unmapped stays.
///
/// # Safety
/// As there. `parts` is on the stack, and no part has the instructions in it.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub(super) unsafe fn without(parts: &[(usize, usize)], stack: (usize, usize)) -> ! {
    let parts = parts.as_ptr_range();
    // SAFETY: system calls alone, with numbers in registers, the list as long as its stack is there,
    // and constants that lie among the instructions.
    unsafe {
        last!(
            "2: cmp r12, r13",
            "je 3f",
            "mov rdi, [r12]",
            "mov rsi, [r12 + 8]",
            "mov eax, {munmap}",
            "syscall",
            "add r12, 16",
            "jmp 2b",
            "3: mov rdi, r8",
            "mov rsi, r9",
            "mov eax, {munmap}",
            "syscall",
            // The word that the pod is held; then the wire is closed.
            "xor edi, edi",
            "lea rsi, [rip + 8f]",
            "mov edx, 1",
            "mov eax, {write}",
            "syscall",
            "cmp rax, 1",
            "jne 5f",
            "xor edi, edi",
            "mov esi, -1",
            "xor edx, edx",
            "mov eax, {close_range}",
            "syscall",
            "test rax, rax",
            "jne 5f",
            // Interrupted by being stopped and continued, it waits again.
            "4: lea rdi, [rip + 7f]",
            "xor esi, esi",
            "xor edx, edx",
            "mov r10d, {set}",
            "mov eax, {wait}",
            "syscall",
            "xor edi, edi",
            "test rax, rax",
            "jg 6f",
            "cmp rax, -{interrupted}",
            "je 4b",
            "5: mov edi, {failed}",
            "6: mov eax, {exit}",
            "syscall",
            "ud2",
            ".balign 8",
            "7: .quad {ending}",
            "8: .byte {holding}",
            ; "r12" = parts.start, "r13" = parts.end, "r8" = stack.0, "r9" = stack.1
        )
    }
}

/// The same.
///
/// # Safety
/// The same.
#[cfg(target_arch = "aarch64")]
#[inline(never)]
pub(super) unsafe fn without(parts: &[(usize, usize)], stack: (usize, usize)) -> ! {
    let parts = parts.as_ptr_range();
    // SAFETY: as above.
    unsafe {
        last!(
            "2: cmp x9, x10",
            "b.eq 3f",
            "ldp x0, x1, [x9], #16",
            "mov x8, #{munmap}",
            "svc #0",
            "b 2b",
            "3: mov x0, x11",
            "mov x1, x12",
            "mov x8, #{munmap}",
            "svc #0",
            "mov x0, #0",
            "adr x1, 8f",
            "mov x2, #1",
            "mov x8, #{write}",
            "svc #0",
            "cmp x0, #1",
            "b.ne 5f",
            "mov x0, #0",
            "mov w1, #-1",
            "mov x2, #0",
            "mov x8, #{close_range}",
            "svc #0",
            "cbnz x0, 5f",
            "4: adr x0, 7f",
            "mov x1, #0",
            "mov x2, #0",
            "mov x3, #{set}",
            "mov x8, #{wait}",
            "svc #0",
            "cmp x0, #0",
            "b.gt 6f",
            "cmn x0, #{interrupted}",
            "b.eq 4b",
            "5: mov x0, #{failed}",
            "b 9f",
            "6: mov x0, #0",
            "9: mov x8, #{exit}",
            "svc #0",
            "brk #1",
            ".balign 8",
            "7: .xword {ending}",
            "8: .byte {holding}",
            ".balign 4",
            ; "x9" = parts.start, "x10" = parts.end, "x11" = stack.0, "x12" = stack.1
        )
    }
}
