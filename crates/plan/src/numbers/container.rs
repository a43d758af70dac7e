use super::{Trap, Words};

/// The codes of answers that are counted each for itself; the others by their hundred. A guest chooses its code.
pub const CODES: [u16; 30] = [
    200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 409, 410,
    411, 413, 415, 422, 426, 429, 500, 501, 502, 503, 504,
];
/// How many hundreds there are: 1xx to 5xx.
const HUNDREDS: usize = 5;

/// A number of a container's page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// A request came.
    Asked,
    /// One was answered, with the code of this place in [`CODES`], or behind them of this hundred.
    Answered(u8),
    /// An instance was made to answer requests.
    Instance,
    /// A connection, a datagram, a request or a name lookup was refused by the settings.
    NetworkRefused,
    /// Units of fuel that instances have used which are over.
    Fuel,
    /// The guest, or an instance of it, was stopped by the engine.
    Trapped(Trap),
}

impl Count {
    /// Of an answer's code.
    #[must_use]
    pub fn answered(code: u16) -> Self {
        let place = CODES.iter().position(|known| *known == code);
        let hundred = usize::from(code / 100).clamp(1, HUNDREDS) - 1;
        let place = place.unwrap_or(CODES.len() + hundred);
        Self::Answered(u8::try_from(place).unwrap_or(u8::MAX))
    }

    /// Its word.
    #[must_use]
    pub const fn word(self) -> usize {
        match self {
            Self::Asked => 0,
            Self::Instance => 1,
            Self::NetworkRefused => 2,
            Self::Fuel => 3,
            Self::Trapped(trap) => 16 + trap as usize,
            Self::Answered(place) => 40 + place as usize,
        }
    }
}

/// A page as it was when it was read. The runner writes it, which a guest may have taken over: nothing in it is to be
/// believed further than that it is this container's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page(pub Words);

impl Page {
    /// More than any container has seen; whoever says more lies, and is not to spoil sums with others.
    pub const MOST: u64 = 1 << 48;

    /// One of them.
    #[must_use]
    pub fn get(&self, count: Count) -> u64 {
        self.0.get(count.word()).min(Self::MOST)
    }

    /// The answers by code: `404`, or `4xx` for those that are not counted for themselves. Those that there were.
    #[must_use]
    pub fn answers(&self) -> Vec<(String, u64)> {
        let named = CODES.iter().map(ToString::to_string);
        let hundreds = (1..=HUNDREDS).map(|hundred| format!("{hundred}xx"));
        named
            .chain(hundreds)
            .zip(0..)
            .map(|(name, place)| (name, self.get(Count::Answered(place))))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let answered = self.answers().iter().map(|(_, count)| count).sum();
        self.get(Count::Asked).saturating_sub(answered)
    }
}

#[cfg(test)]
pub(super) fn all_words() -> impl Iterator<Item = usize> {
    [
        Count::Asked,
        Count::Instance,
        Count::NetworkRefused,
        Count::Fuel,
    ]
    .into_iter()
    .chain(Trap::ALL.map(Count::Trapped))
    .chain(
        (0..CODES.len() + HUNDREDS).map(|place| Count::Answered(u8::try_from(place).expect("few"))),
    )
    .map(Count::word)
    .chain(super::Durations::REQUEST.words())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_not_answered_is_in_flight() {
        let mut page = Page::default();
        page.0.add(Count::Asked.word(), 3);
        page.0.add(Count::answered(200).word(), 1);
        page.0.add(Count::answered(418).word(), 1);
        assert_eq!(page.in_flight(), 1);
        assert_eq!(
            page.answers(),
            [("200".to_owned(), 1), ("4xx".to_owned(), 1)]
        );
        // A page that lies has nothing in flight, and no number beyond reason.
        page.0.add(Count::answered(200).word(), u64::MAX - 1);
        assert_eq!(page.in_flight(), 0);
        assert_eq!(page.get(Count::answered(200)), Page::MOST);
    }
}
