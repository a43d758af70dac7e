//! From rules to instructions of the classic BPF machine.
//!
//! A decision tree over the numbers: a call costs about as many steps as the number of rules has
//! binary digits, where the usual list costs one step for every rule.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET,
    BPF_W, sock_filter,
};

/// What the kernel does: a `SECCOMP_RET_` value with its data.
pub(super) type Action = u32;

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which argument, 0 to 5.
    pub(super) argument: u8,
    pub(super) test: Test,
    pub(super) value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal,
    Unequal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    /// Equal under the mask.
    Masked(u64),
}

/// For one system call: the first rule all of whose conditions hold decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rules {
    pub(super) conditional: Vec<(Vec<Condition>, Action)>,
    /// If none of them does; `None` is the architecture's default.
    pub(super) otherwise: Option<Action>,
}

/// The rules of one architecture.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// `AUDIT_ARCH_` value.
    pub(super) architecture: u32,
    /// By number, in ascending order, each once.
    pub(super) calls: Vec<(u32, Rules)>,
    pub(super) default: Action,
    /// For numbers above a limit: those that did not exist when the rules were written.
    pub(super) beyond: Option<(u32, Action)>,
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Most instructions that the kernel takes.
pub(super) const LONGEST: usize = 4096;

/// Where a condition that does not hold goes, until the length of its rule is known.
const FAIL: u8 = u8::MAX;

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: (BPF_JMP | code | BPF_K) as u16,
        jt,
        jf,
        k,
    }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn answer(action: Action) -> sock_filter {
    statement(BPF_RET | BPF_K, action)
}

/// Skips a number of instructions that may be larger than a conditional jump can.
fn skip(count: usize) -> sock_filter {
    statement(BPF_JMP | BPF_JA, count as u32)
}

/// The whole program; calls of an architecture that has no table get `foreign`.
pub(super) fn assemble(tables: &[Table], foreign: Action) -> Vec<sock_filter> {
    let mut program = Vec::with_capacity(1024);
    program.push(load(ARCHITECTURE));
    for table in tables {
        program.push(jump(BPF_JEQ, table.architecture, 1, 0));
        let over = program.len();
        program.push(skip(0));
        program.push(load(NUMBER));
        grow(&mut program, &leaves(table));
        program[over].k = (program.len() - over - 1) as u32;
    }
    program.push(answer(foreign));
    program
}

/// A stretch of numbers with the same rules, from its start to the next one's.
type Leaf<'a> = (u32, Vec<&'a (Vec<Condition>, Action)>, Action);

fn leaves(table: &Table) -> Vec<Leaf<'_>> {
    let mut leaves: Vec<Leaf<'_>> = Vec::with_capacity(2 * table.calls.len() + 2);
    leaves.push((0, Vec::new(), table.default));
    for (number, rules) in &table.calls {
        let leaf = (
            *number,
            rules.conditional.iter().collect::<Vec<_>>(),
            rules.otherwise.unwrap_or(table.default),
        );
        add(&mut leaves, leaf);
        add(&mut leaves, (number + 1, Vec::new(), table.default));
    }
    if let Some((limit, action)) = table.beyond {
        leaves.retain(|leaf| leaf.0 <= limit);
        add(&mut leaves, (limit + 1, Vec::new(), action));
    }
    leaves
}

fn add<'a>(leaves: &mut Vec<Leaf<'a>>, leaf: Leaf<'a>) {
    if leaves.last().is_some_and(|last| last.0 == leaf.0) {
        leaves.pop();
    }
    if leaves
        .last()
        .is_none_or(|last| last.1 != leaf.1 || last.2 != leaf.2)
    {
        leaves.push(leaf);
    }
}

/// Appends the tree of some leaves.
fn grow(code: &mut Vec<sock_filter>, leaves: &[Leaf<'_>]) {
    match leaves {
        [] => {}
        [(_, conditional, otherwise)] => {
            for (conditions, action) in conditional {
                rule(code, conditions, *action);
            }
            code.push(answer(*otherwise));
        }
        _ => {
            let (low, high) = leaves.split_at(leaves.len() / 2);
            let (fork, start) = (code.len(), high[0].0);
            code.push(jump(BPF_JGE, start, 0, 0));
            grow(code, low);
            let length = code.len() - fork - 1;
            match u8::try_from(length) {
                Ok(length) => code[fork].jt = length,
                // Too far for a conditional jump: over a jump that can.
                Err(_) => {
                    code[fork].jf = 1;
                    code.insert(fork + 1, skip(length));
                }
            }
            grow(code, high);
        }
    }
}

/// Appends a rule: its action if all conditions hold, else on to what follows.
fn rule(code: &mut Vec<sock_filter>, conditions: &[Condition], action: Action) {
    let begin = code.len();
    code.extend(conditions.iter().flat_map(condition));
    code.push(answer(action));
    let end = code.len();
    for (at, one) in code.iter_mut().enumerate().skip(begin) {
        // At most six conditions of seven instructions: it fits.
        let to_end = (end - at - 1) as u8;
        if one.jt == FAIL {
            one.jt = to_end;
        }
        if one.jf == FAIL {
            one.jf = to_end;
        }
    }
}

/// Falls through if it holds. The machine has 32 bits: the upper half is compared first.
fn condition(condition: &Condition) -> Vec<sock_filter> {
    let low_offset = ARGUMENTS + 8 * u32::from(condition.argument);
    let (low, high) = (load(low_offset), load(low_offset + 4));
    let (value_low, value_high) = (condition.value as u32, (condition.value >> 32) as u32);
    let both = |last: sock_filter| vec![high, jump(BPF_JEQ, value_high, 0, FAIL), low, last];
    // `jgt` on the upper half decides at once, unequal halves that are not greater as well.
    let greater = |last| {
        vec![
            high,
            jump(BPF_JGT, value_high, 3, 0),
            jump(BPF_JEQ, value_high, 0, FAIL),
            low,
            last,
        ]
    };
    let less = |last| {
        vec![
            high,
            jump(BPF_JGT, value_high, FAIL, 0),
            jump(BPF_JEQ, value_high, 0, 2),
            low,
            last,
        ]
    };
    match condition.test {
        Test::Equal => both(jump(BPF_JEQ, value_low, 0, FAIL)),
        Test::Unequal => {
            vec![
                high,
                jump(BPF_JEQ, value_high, 0, 2),
                low,
                jump(BPF_JEQ, value_low, FAIL, 0),
            ]
        }
        Test::Greater => greater(jump(BPF_JGT, value_low, 0, FAIL)),
        Test::GreaterOrEqual => greater(jump(BPF_JGE, value_low, 0, FAIL)),
        Test::Less => less(jump(BPF_JGE, value_low, FAIL, 0)),
        Test::LessOrEqual => less(jump(BPF_JGT, value_low, FAIL, 0)),
        Test::Masked(mask) => {
            let and = |mask: u32| statement(BPF_ALU | BPF_AND | BPF_K, mask);
            vec![
                high,
                and((mask >> 32) as u32),
                jump(BPF_JEQ, value_high, 0, FAIL),
                low,
                and(mask as u32),
                jump(BPF_JEQ, value_low, 0, FAIL),
            ]
        }
    }
}

#[cfg(test)]
pub(super) mod machine {
    //! The kernel's machine, as far as filters use it.
    use super::*;

    /// What the program answers, and how many instructions it took.
    pub(crate) fn run(
        program: &[sock_filter],
        architecture: u32,
        number: u32,
        arguments: [u64; 6],
    ) -> (Action, usize) {
        let mut data = vec![number, architecture, 0, 0];
        for argument in arguments {
            data.extend([argument as u32, (argument >> 32) as u32]);
        }
        let (mut at, mut accumulator, mut steps) = (0_usize, 0_u32, 0);
        loop {
            let one = program[at];
            steps += 1;
            at += 1;
            let code = u32::from(one.code);
            match code & 0x07 {
                BPF_LD => accumulator = data[one.k as usize / 4],
                BPF_ALU => accumulator &= one.k,
                BPF_RET => return (one.k, steps),
                BPF_JMP if code & 0xf0 == BPF_JA => at += one.k as usize,
                BPF_JMP => {
                    let holds = match code & 0xf0 {
                        BPF_JEQ => accumulator == one.k,
                        BPF_JGT => accumulator > one.k,
                        BPF_JGE => accumulator >= one.k,
                        other => panic!("jump {other:#x}"),
                    };
                    at += usize::from(if holds { one.jt } else { one.jf });
                }
                other => panic!("class {other:#x}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCH: u32 = 7;
    const ALLOW: Action = 1;
    const DENY: Action = 2;
    const OTHER: Action = 3;

    fn program(calls: Vec<(u32, Rules)>) -> Vec<sock_filter> {
        assemble(
            &[Table {
                architecture: ARCH,
                calls,
                default: DENY,
                beyond: Some((400, OTHER)),
            }],
            9,
        )
    }

    fn plain(action: Action) -> Rules {
        Rules {
            conditional: Vec::new(),
            otherwise: Some(action),
        }
    }

    #[test]
    fn numbers_are_found_in_few_steps() {
        let calls = (0..300)
            .filter(|number| number % 3 == 0)
            .map(|number| (number, plain(ALLOW)))
            .collect();
        let program = program(calls);
        assert!(program.len() < LONGEST);
        for number in 0..500 {
            let (action, steps) = machine::run(&program, ARCH, number, [0; 6]);
            let expected = match number {
                401.. => OTHER,
                300.. => DENY,
                _ if number % 3 == 0 => ALLOW,
                _ => DENY,
            };
            assert_eq!(action, expected, "{number}");
            assert!(steps < 30, "{steps}");
        }
        assert_eq!(machine::run(&program, 8, 0, [0; 6]).0, 9);
    }

    #[test]
    fn conditions_compare_all_64_bits() {
        let interesting = [
            0,
            1,
            5,
            6,
            u64::from(u32::MAX),
            1 << 32,
            (1 << 32) + 5,
            (1 << 32) + 6,
            (2 << 32) + 5,
            u64::MAX,
        ];
        type Holds = fn(u64, u64) -> bool;
        let tests: [(Test, Holds); 7] = [
            (Test::Equal, |a, b| a == b),
            (Test::Unequal, |a, b| a != b),
            (Test::Greater, |a, b| a > b),
            (Test::GreaterOrEqual, |a, b| a >= b),
            (Test::Less, |a, b| a < b),
            (Test::LessOrEqual, |a, b| a <= b),
            (Test::Masked(0x1_0000_0003), |a, b| a & 0x1_0000_0003 == b),
        ];
        for (test, holds) in tests {
            for value in interesting {
                let rules = Rules {
                    conditional: vec![(
                        vec![Condition {
                            argument: 2,
                            test,
                            value,
                        }],
                        ALLOW,
                    )],
                    otherwise: Some(OTHER),
                };
                let program = program(vec![(10, rules)]);
                for argument in interesting {
                    let (action, _) = machine::run(&program, ARCH, 10, [0, 0, argument, 0, 0, 0]);
                    assert_eq!(
                        action == ALLOW,
                        holds(argument, value),
                        "{argument:#x} {test:?} {value:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn all_conditions_of_a_rule_must_hold_and_the_first_rule_that_does_decides() {
        let condition = |argument, value| Condition {
            argument,
            test: Test::Equal,
            value,
        };
        let rules = Rules {
            conditional: vec![
                (vec![condition(0, 1), condition(1, 2)], ALLOW),
                (vec![condition(0, 1)], OTHER),
            ],
            otherwise: None,
        };
        let program = program(vec![(10, rules)]);
        let answer = |a, b| machine::run(&program, ARCH, 10, [a, b, 0, 0, 0, 0]).0;
        assert_eq!(
            (answer(1, 2), answer(1, 3), answer(2, 2)),
            (ALLOW, OTHER, DENY)
        );
    }
}
