//! Who compiles which program. The store sees to it that one supervisor does, by a lock that the others wait for on a
//! thread each. Within a supervisor that serves many pods there must be no such crowd: the one who compiles needs threads
//! too, and would not get any.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use plan::Digest;
use tokio::sync::OwnedMutexGuard;

/// The programs that somebody in this process compiles, or waits for.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl Flights {
    /// Waits until nobody else in this process is after the program; it may be compiled by then.
    pub(crate) async fn turn(&self, program: &Digest) -> OwnedMutexGuard<()> {
        let flight = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            flights.retain(|_, flight| flight.strong_count() > 0);
            let known = flights.get(program).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let flight = Arc::default();
                flights.insert(*program, Arc::downgrade(&flight));
                flight
            })
        };
        flight.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn one_at_a_time_for_a_program_and_others_beside_it() {
        let digest = |digit: &str| -> Digest {
            let digest = format!("sha256:{}", digit.repeat(64));
            digest.parse().expect("a digest")
        };
        let flights = Flights::default();
        let mut context = Context::from_waker(Waker::noop());
        let (program, another) = (digest("a"), digest("b"));
        let mut first = pin!(flights.turn(&program));
        let Poll::Ready(turn) = first.as_mut().poll(&mut context) else {
            panic!("nobody else is after it");
        };
        let mut same = pin!(flights.turn(&program));
        let mut other = pin!(flights.turn(&another));
        assert!(same.as_mut().poll(&mut context).is_pending());
        assert!(other.as_mut().poll(&mut context).is_ready());
        drop(turn);
        assert!(same.as_mut().poll(&mut context).is_ready());
        assert_eq!(flights.0.lock().expect("whole").len(), 2);
    }
}
