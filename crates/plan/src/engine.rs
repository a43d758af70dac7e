use serde::{Deserialize, Serialize};

/// How native code is made and how instances are: decided for a RuntimeClass, because all of it but the pool is part
/// of what artifacts depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSettings {
    /// Code counts what it does.
    pub fuel: bool,
    /// Features that programs must not use, sorted.
    pub disabled: Vec<Proposal>,
    /// Instances of HTTP guests come out of a pool.
    pub pooling: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            fuel: false,
            disabled: Vec::new(),
            pooling: true,
        }
    }
}

/// Features of WebAssembly that can be switched off (names as in the proposals' repositories).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Proposal {
    Exceptions,
    Gc,
    Memory64,
    MultiMemory,
    RelaxedSimd,
    Simd,
    TailCall,
}

/// Proposals as words, in the order of their declaration.
const PROPOSALS: [(Proposal, &str); 7] = [
    (Proposal::Exceptions, "exceptions"),
    (Proposal::Gc, "gc"),
    (Proposal::Memory64, "memory64"),
    (Proposal::MultiMemory, "multi-memory"),
    (Proposal::RelaxedSimd, "relaxed-simd"),
    (Proposal::Simd, "simd"),
    (Proposal::TailCall, "tail-call"),
];

impl EngineSettings {
    /// What artifacts depend on, as one word for a command line: `standard`, or the differences joined by `+`.
    #[must_use]
    pub fn word(&self) -> String {
        let mut parts = Vec::new();
        if self.fuel {
            parts.push("fuel".to_owned());
        }
        for (proposal, name) in PROPOSALS {
            if self.disabled.contains(&proposal) {
                parts.push(format!("no-{name}"));
            }
        }
        if parts.is_empty() {
            "standard".to_owned()
        } else {
            parts.join("+")
        }
    }

    /// Reads [`EngineSettings::word`].
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        let mut settings = Self::default();
        if word == "standard" {
            return Some(settings);
        }
        for part in word.split('+') {
            match part {
                "fuel" => settings.fuel = true,
                _ => {
                    let name = part.strip_prefix("no-")?;
                    let (proposal, _) = PROPOSALS.into_iter().find(|(_, known)| *known == name)?;
                    settings.disabled.push(proposal);
                }
            }
        }
        Some(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_what_artifacts_depend_on() {
        let all = EngineSettings {
            fuel: true,
            disabled: vec![Proposal::Gc, Proposal::RelaxedSimd],
            pooling: true,
        };
        assert_eq!(all.word(), "fuel+no-gc+no-relaxed-simd");
        for settings in [all, EngineSettings::default()] {
            assert_eq!(EngineSettings::of_word(&settings.word()), Some(settings));
        }
        assert_eq!(EngineSettings::of_word("no-such"), None);
        assert_eq!(
            EngineSettings {
                pooling: false,
                ..EngineSettings::default()
            }
            .word(),
            "standard"
        );
    }
}
