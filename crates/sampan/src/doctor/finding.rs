use serde::Serialize;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What it is about, in a word.
    pub(super) about: &'static str,
    pub(super) state: State,
    pub(super) what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// As it should be.
    Good,
    /// It works, but not as well as it could.
    Advice,
    /// It could not be looked at.
    Unknown,
    /// Containers do not start, or not all, until it is mended.
    Fault,
}

impl Finding {
    pub(super) fn good(about: &'static str, what: impl Into<String>) -> Self {
        Self {
            about,
            state: State::Good,
            what: what.into(),
            fix: None,
        }
    }

    pub(super) fn advice(
        about: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::with(State::Advice, about, what, fix)
    }

    pub(super) fn unknown(
        about: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::with(State::Unknown, about, what, fix)
    }

    pub(super) fn fault(
        about: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::with(State::Fault, about, what, fix)
    }

    fn with(
        state: State,
        about: &'static str,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        let one_line = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            about,
            state,
            what: one_line(what.into()),
            fix: Some(one_line(fix.into())),
        }
    }
}
