use std::collections::BTreeMap;

use libc::{
    SECCOMP_RET_ALLOW, SECCOMP_RET_DATA, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator,
};

use super::Filter;
use super::bpf::{self, Action, Condition, Rules, Table, Test};

/// Why a seccomp profile cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// An action that needs somebody outside to answer.
    #[error("linux.seccomp: action {action} is not supported")]
    Action {
        /// As the spec has it.
        action: String,
    },
    /// A flag that is not offered.
    #[error("linux.seccomp: flag {flag} is not supported")]
    Flag {
        /// As the spec has it.
        flag: String,
    },
    /// There are six arguments.
    #[error("linux.seccomp: system call {call} has no argument {index}")]
    Argument {
        /// The system call.
        call: String,
        /// What was given as the argument's index.
        index: u64,
    },
    /// The kernel takes 4096 instructions.
    #[error(
        "linux.seccomp: the profile makes {instructions} instructions, more than the kernel takes (4096)"
    )]
    Long {
        /// How many there would be.
        instructions: usize,
    },
}

// <linux/audit.h>
const AUDIT_ARCH_X86_64: u32 = 0xC000_003E;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xC000_00B7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// Numbers from here on are of the x32 ABI, which shares its audit value with x86_64.
const X32: u32 = 0x4000_0000;

type Resolve = fn(&str) -> Option<u32>;

/// The architectures whose programs this machine's kernel may run: our own first.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [(u32, &[Arch], Resolve); 2] = [
    (AUDIT_ARCH_X86_64, &[Arch::ScmpArchX86_64], |name| {
        name.parse::<syscalls::x86_64::Sysno>()
            .ok()
            .map(|number| number.id() as u32)
    }),
    (AUDIT_ARCH_I386, &[Arch::ScmpArchX86], |name| {
        name.parse::<syscalls::x86::Sysno>()
            .ok()
            .map(|number| number.id() as u32)
    }),
];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [(u32, &[Arch], Resolve); 2] = [
    (AUDIT_ARCH_AARCH64, &[Arch::ScmpArchAarch64], |name| {
        name.parse::<syscalls::aarch64::Sysno>()
            .ok()
            .map(|number| number.id() as u32)
    }),
    (AUDIT_ARCH_ARM, &[Arch::ScmpArchArm], |name| {
        name.parse::<syscalls::arm::Sysno>()
            .ok()
            .map(|number| number.id() as u32)
    }),
];

/// The architecture that this program itself is for.
pub(super) const OWN: u32 = if cfg!(target_arch = "x86_64") {
    AUDIT_ARCH_X86_64
} else {
    AUDIT_ARCH_AARCH64
};
const _: [u32; 4] = [
    AUDIT_ARCH_X86_64,
    AUDIT_ARCH_I386,
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_ARM,
];

/// What calls of an architecture without rules get, as libseccomp has it.
pub(super) const FOREIGN: Action = SECCOMP_RET_KILL_PROCESS;

impl Filter {
    /// Compiles the profile of a spec (OCI runtime-spec, "Seccomp").
    ///
    /// As runc does it: names that do not exist here are passed over; of several rules for one
    /// call those with conditions come first, and one without conditions decides the rest; a call
    /// with a higher number than any that the profile names did not exist when it was written and
    /// is answered with "not implemented", so that C libraries fall back to an older one. Calls of
    /// 32-bit programs are judged by the same rules if the profile names their architecture;
    /// those of architectures that it does not name kill the process.
    ///
    /// # Errors
    /// [`SeccompError`] for what needs an agent outside (`SCMP_ACT_NOTIFY`) or cannot be.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Self, SeccompError> {
        let default = action(profile.default_action(), profile.default_errno_ret())?;
        let named = profile.architectures().as_deref().unwrap_or_default();
        let mut tables = Vec::new();
        for (index, (architecture, names, resolve)) in ARCHITECTURES.iter().enumerate() {
            // Our own always counts: a profile without a list means it.
            if index == 0 || names.iter().any(|name| named.contains(name)) {
                tables.push(table(profile, default, *architecture, *resolve)?);
            }
        }
        let program = bpf::assemble(&tables, FOREIGN);
        if program.len() > bpf::LONGEST {
            return Err(SeccompError::Long {
                instructions: program.len(),
            });
        }
        Ok(Self::new(&program, flags(profile)?))
    }
}

fn table(
    profile: &LinuxSeccomp,
    default: Action,
    architecture: u32,
    resolve: Resolve,
) -> Result<Table, SeccompError> {
    let mut calls: BTreeMap<u32, Rules> = BTreeMap::new();
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret())?;
        for name in rule.names() {
            let Some(number) = resolve(name) else {
                continue;
            };
            let rules = calls.entry(number).or_default();
            if action == default {
                continue;
            }
            let conditions = rule
                .args()
                .iter()
                .flatten()
                .map(|argument| condition(name, argument))
                .collect::<Result<Vec<_>, _>>()?;
            if conditions.is_empty() {
                rules.otherwise = Some(action);
            } else if repeats(&conditions) {
                // libseccomp takes two conditions on one argument as alternatives, and so does
                // everybody's profile.
                rules
                    .conditional
                    .extend(conditions.into_iter().map(|one| (vec![one], action)));
            } else {
                rules.conditional.push((conditions, action));
            }
        }
    }
    let highest = calls.keys().next_back().copied();
    let refuses = matches!(default & !SECCOMP_RET_DATA, SECCOMP_RET_ERRNO);
    let beyond = match highest {
        Some(highest) if refuses => Some((highest, errno(libc::ENOSYS))),
        _ if architecture == AUDIT_ARCH_X86_64 => Some((X32 - 1, default)),
        _ => None,
    };
    Ok(Table {
        architecture,
        calls: calls.into_iter().collect(),
        default,
        beyond,
    })
}

fn repeats(conditions: &[Condition]) -> bool {
    conditions.iter().enumerate().any(|(at, one)| {
        conditions[..at]
            .iter()
            .any(|other| other.argument == one.argument)
    })
}

/// The answer "failed with this error".
pub(super) const fn errno(number: i32) -> Action {
    SECCOMP_RET_ERRNO | (number as u32 & SECCOMP_RET_DATA)
}

fn action(action: LinuxSeccompAction, data: Option<u32>) -> Result<Action, SeccompError> {
    let data = data.unwrap_or(libc::EPERM as u32) & SECCOMP_RET_DATA;
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => SECCOMP_RET_ALLOW,
        LinuxSeccompAction::ScmpActErrno => SECCOMP_RET_ERRNO | data,
        LinuxSeccompAction::ScmpActTrace => SECCOMP_RET_TRACE | data,
        LinuxSeccompAction::ScmpActLog => SECCOMP_RET_LOG,
        LinuxSeccompAction::ScmpActTrap => SECCOMP_RET_TRAP,
        LinuxSeccompAction::ScmpActKillProcess => SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            SECCOMP_RET_KILL_THREAD
        }
        other => {
            return Err(SeccompError::Action {
                action: other.to_string(),
            });
        }
    })
}

fn condition(call: &str, argument: &LinuxSeccompArg) -> Result<Condition, SeccompError> {
    let index = argument.index();
    let number = u8::try_from(index)
        .ok()
        .filter(|index| *index < 6)
        .ok_or_else(|| SeccompError::Argument {
            call: call.to_owned(),
            index: index as u64,
        })?;
    let value = argument.value();
    let (test, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => (Test::Equal, value),
        LinuxSeccompOperator::ScmpCmpNe => (Test::Unequal, value),
        LinuxSeccompOperator::ScmpCmpGt => (Test::Greater, value),
        LinuxSeccompOperator::ScmpCmpGe => (Test::GreaterOrEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (Test::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (Test::LessOrEqual, value),
        // `value` is the mask here, `valueTwo` what must be left.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (Test::Masked(value), argument.value_two().unwrap_or(0))
        }
    };
    Ok(Condition {
        argument: number,
        test,
        value,
    })
}

fn flags(profile: &LinuxSeccomp) -> Result<u32, SeccompError> {
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => {
                libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32
            }
            // The process has one thread.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            #[allow(unreachable_patterns, reason = "later versions of the spec have more")]
            other => {
                return Err(SeccompError::Flag {
                    flag: other.to_string(),
                });
            }
        };
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::bpf::machine::run;
    use super::*;

    /// The shape of the profiles that containerd and Docker give by default.
    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [
            {"names": ["read", "write", "no_such_call", "pidfd_open"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["ptrace"], "action": "SCMP_ACT_KILL_PROCESS"}
        ]}"#;

    fn compile(json: &str) -> Result<Vec<libc::sock_filter>, SeccompError> {
        let profile: LinuxSeccomp = serde_json::from_str(json).expect("a profile");
        let filter = Filter::compile(&profile)?;
        let bytes = postcard::to_stdvec(&filter).expect("encoded");
        let filter: Filter = postcard::from_bytes(&bytes).expect("decoded");
        Ok(filter.instructions())
    }

    fn number(name: &str) -> u32 {
        (ARCHITECTURES[0].2)(name).expect("a system call")
    }

    #[test]
    fn a_profile_decides_as_it_says() {
        let program = compile(PROFILE).expect("compiles");
        let answer = |name: &str, first| run(&program, OWN, number(name), [first, 0, 0, 0, 0, 0]).0;
        assert_eq!(answer("read", 0), SECCOMP_RET_ALLOW);
        assert_eq!(answer("mount", 0), errno(libc::EPERM));
        assert_eq!(answer("personality", 0), SECCOMP_RET_ALLOW);
        assert_eq!(answer("personality", 8), SECCOMP_RET_ALLOW);
        assert_eq!(answer("personality", 1), errno(libc::EPERM));
        assert_eq!(answer("clone", 0x11), SECCOMP_RET_ALLOW);
        assert_eq!(answer("clone", 0x1000_0000), errno(libc::EPERM));
        assert_eq!(answer("clone3", 0), errno(libc::ENOSYS));
        assert_eq!(answer("ptrace", 0), SECCOMP_RET_KILL_PROCESS);
        // Newer than anything that the profile names.
        assert_eq!(run(&program, OWN, 2000, [0; 6]).0, errno(libc::ENOSYS));
        assert_eq!(run(&program, OWN, X32 + 1, [0; 6]).0, errno(libc::ENOSYS));
        assert_eq!(run(&program, 0x1234, 0, [0; 6]).0, FOREIGN);
    }

    #[test]
    fn programs_of_32_bits_are_judged_by_the_same_names() {
        let program = compile(PROFILE).expect("compiles");
        let (architecture, _, resolve) = ARCHITECTURES[1];
        assert_eq!(
            run(
                &program,
                architecture,
                resolve("write").expect("exists"),
                [0; 6]
            )
            .0,
            SECCOMP_RET_ALLOW
        );
        assert_eq!(
            run(
                &program,
                architecture,
                resolve("mount").expect("exists"),
                [0; 6]
            )
            .0,
            errno(libc::EPERM)
        );
    }

    #[test]
    fn what_needs_an_agent_is_refused_by_name() {
        let error = compile(r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}"#)
            .expect_err("needs an agent");
        assert!(error.to_string().contains("NOTIFY"), "{error}");
    }
}
