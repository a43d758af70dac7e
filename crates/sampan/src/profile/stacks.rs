//! Samples with names: what a profile is made of.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::code::Code;
use crate::profile::sampling::Sample;

/// Frames that are no functions of the guest.
const HOST: &str = "[host]";
const KERNEL: &str = "[kernel]";

/// All samples.
pub(super) struct Stacks<'a> {
    code: &'a Code,
    pub(super) begun: SystemTime,
    names: Vec<String>,
    numbers: BTreeMap<String, usize>,
    samples: Vec<Stack>,
}

/// One of them.
pub(super) struct Stack {
    pub(super) thread: u32,
    pub(super) time: u64,
    /// The outermost first; by the numbers of names.
    pub(super) frames: Vec<usize>,
}

impl<'a> Stacks<'a> {
    pub(super) fn new(code: &'a Code, begun: SystemTime) -> Self {
        Self {
            code,
            begun,
            names: Vec::new(),
            numbers: BTreeMap::new(),
            samples: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, sample: &Sample) {
        let mut names = Vec::new();
        for (depth, at) in sample.stack.iter().enumerate() {
            // Where a call returns to may be behind the end of the function that calls.
            let function = self
                .code
                .at(if depth == 0 { *at } else { at.wrapping_sub(1) });
            match function {
                Some(function) => names.push(function.name.as_str()),
                // Without frame pointers the callers of the host's functions are guesses: it is one frame.
                None if names.last() != Some(&HOST) => names.push(HOST),
                None => {}
            }
        }
        // What called the guest is always the host.
        if names.len() > 1 && names.last() == Some(&HOST) {
            names.pop();
        }
        if sample.in_kernel {
            names.insert(0, KERNEL);
        }
        let names: Vec<_> = names.into_iter().rev().map(str::to_owned).collect();
        let frames = names.into_iter().map(|name| self.number(name)).collect();
        self.samples.push(Stack {
            thread: sample.thread,
            time: sample.time,
            frames,
        });
    }

    fn number(&mut self, name: String) -> usize {
        let next = self.names.len();
        *self.numbers.entry(name).or_insert_with_key(|name| {
            self.names.push(name.clone());
            next
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    pub(super) fn samples(&self) -> &[Stack] {
        &self.samples
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }
}
