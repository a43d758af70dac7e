//! Whom one supervisor serves. Nothing but the name under which containerd executes this program says so: the same file
//! is there under two names, and a runtime type of containerd means a name.

use std::ffi::OsStr;
use std::path::Path;

/// How far a supervisor reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The containers of one pod, or one container that is in none.
    Pod,
    /// All containers of a containerd namespace.
    Node,
}

impl Scope {
    /// Of the name of the program that is executed (`argv[0]`), with or without a path.
    pub(crate) fn of_program(program: &OsStr) -> Self {
        match Path::new(program).file_name() {
            Some(name) if name == Self::Node.program() => Self::Node,
            _ => Self::Pod,
        }
    }

    /// The name of the program.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Pod => "containerd-shim-sampan-v1",
            Self::Node => "containerd-shim-sampan-dense-v1",
        }
    }

    /// The name under which containerd knows the runtime, from which it makes that of the program
    /// (`docs/runtime-v2.md`, "Invoking a runtime").
    pub(crate) const fn runtime(self) -> &'static str {
        match self {
            Self::Pod => "io.containerd.sampan.v1",
            Self::Node => "io.containerd.sampan-dense.v1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_decides() {
        for (program, scope) in [
            ("containerd-shim-sampan-v1", Scope::Pod),
            ("/usr/local/bin/containerd-shim-sampan-v1", Scope::Pod),
            ("containerd-shim-sampan-dense-v1", Scope::Node),
            ("/opt/bin/containerd-shim-sampan-dense-v1", Scope::Node),
            ("/containerd-shim-sampan-dense-v1/something", Scope::Pod),
            ("/proc/self/exe", Scope::Pod),
            ("", Scope::Pod),
        ] {
            assert_eq!(Scope::of_program(OsStr::new(program)), scope, "{program}");
        }
    }

    #[test]
    fn containerd_finds_the_program_by_the_runtime() {
        for scope in [Scope::Pod, Scope::Node] {
            // containerd's `BinaryName`: the last two words of the runtime's name.
            let words: Vec<&str> = scope.runtime().split('.').collect();
            let [.., name, version] = words.as_slice() else {
                panic!("{} has too few words", scope.runtime());
            };
            assert_eq!(scope.program(), format!("containerd-shim-{name}-{version}"));
        }
    }
}
