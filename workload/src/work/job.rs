//! The work itself, as far as it needs no kernel: the same code in the agent and in the unikernel.

use super::{Kind, Task};
use core::hint::black_box;

/// Steps of [`Kind::Integer`] and [`Kind::Floating`] in one round.
pub const STEPS: u64 = 1 << 16;
/// Loads of [`Kind::Chase`] in one round.
pub const HOPS: u64 = 1 << 16;
/// Bytes that [`Kind::Stream`] moves in one round: two arrays are read and one is written.
pub const STREAMED: u64 = PIECES as u64 * LEAST_STREAMS;
/// The least memory for [`Kind::Stream`], in bytes.
pub(super) const LEAST_STREAMS: u64 = (3 * PIECE * WORD) as u64;

const WORD: usize = size_of::<u64>();
/// Numbers of each array that [`Kind::Stream`] goes through at a time.
const PIECE: usize = 1 << 13;
/// How often it does in one round. A round takes some 50 us and more, whatever its kind, so that what a server does between two is lost
/// in it.
const PIECES: usize = 16;
/// Numbers from one load of [`Kind::Chase`] to the next: each has a cache line of its own, on every processor of this kind.
const LINE: usize = 64 / WORD;

/// A task that is prepared, beside the memory that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    kind: Kind,
    /// Where in memory it goes on.
    position: usize,
    value: u64,
}

impl Job {
    /// Prepares a task on memory of its own, of which it writes all; `None` where only a kernel can do it, or where it
    /// has less memory than [`Kind::least_memory`].
    pub fn prepare(task: &Task, memory: &mut [u64]) -> Option<Self> {
        if task.kind.needs_kernel() || size_of_val(memory) < task.kind.least_memory() as usize {
            return None;
        }
        match task.kind {
            Kind::Chase => link(memory, task.seed),
            Kind::Stream => {
                let mut random = Random(task.seed);
                memory.iter_mut().for_each(|number| *number = random.next());
            }
            _ => {}
        }
        Some(Self { kind: task.kind, position: 0, value: task.seed })
    }

    /// Does one round, on the memory on which it was prepared.
    pub fn round(&mut self, memory: &mut [u64]) {
        match self.kind {
            Kind::Integer => self.value = integer(self.value),
            Kind::Floating => self.value = floating(self.value),
            Kind::Stream => (0..PIECES).for_each(|_| self.stream(memory)),
            Kind::Chase => {
                self.position = chase(memory, self.position);
                self.value = self.position as u64;
            }
            // No such job is prepared.
            Kind::SystemCalls | Kind::SmallFile | Kind::LargeFile => {}
        }
    }

    /// What has come out so far.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// One piece of `a = b + 3 c`; from the end it goes on at the beginning.
    fn stream(&mut self, memory: &mut [u64]) {
        let pieces = memory.len() / (3 * PIECE);
        let (a, rest) = memory.split_at_mut(pieces * PIECE);
        let (b, c) = rest.split_at(pieces * PIECE);
        let begin = self.position % pieces * PIECE;
        let range = begin..begin + PIECE;
        self.position = (self.position + 1) % pieces;
        let a = &mut a[range.clone()];
        triad(a, &b[range.clone()], &c[range]);
        self.value = self.value.rotate_left(1) ^ a[0] ^ a[PIECE - 1];
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[inline(never)]
fn integer(value: u64) -> u64 {
    let mut value = black_box(value);
    for step in 0..STEPS {
        value = (value ^ (value >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(step);
    }
    value
}

/// The logistic map in its chaotic part: it stays between 0 and 1, and each bit of the beginning matters.
#[inline(never)]
fn floating(value: u64) -> u64 {
    // 52 bits as a fraction, never all 0, where the map would stay.
    let mut number = (Random(black_box(value)).next() >> 12 | 1) as f64 / (1_u64 << 52) as f64;
    for _ in 0..STEPS {
        number = 3.99 * number * (1.0 - number);
    }
    number.to_bits()
}

#[inline(never)]
fn triad(a: &mut [u64], b: &[u64], c: &[u64]) {
    for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
        *a = b.wrapping_add(c.wrapping_mul(3));
    }
}

/// Puts into the first number of each line where the next line is: one cycle through all of them, each as likely as any other
/// (Sattolo 1986).
fn link(memory: &mut [u64], seed: u64) {
    let mut random = Random(seed);
    let lines = memory.len() / LINE;
    memory.fill(0);
    for line in 0..lines {
        memory[line * LINE] = (line * LINE) as u64;
    }
    for line in (1..lines).rev() {
        // Lemire's multiplication in place of a division.
        let other = ((u128::from(random.next()) * line as u128) >> 64) as usize;
        memory.swap(line * LINE, other * LINE);
    }
}

#[inline(never)]
fn chase(memory: &[u64], from: usize) -> usize {
    let mut position = black_box(from);
    for _ in 0..HOPS {
        // Every line leads to another one.
        position = memory[position] as usize;
    }
    position
}

#[cfg(test)]
mod tests {
    use super::super::Pages;
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn task(kind: Kind, bytes: usize, seed: u64) -> Task {
        Task { kind, pages: Pages::Usual, bytes: bytes as u64, seed }
    }

    fn done(kind: Kind, words: usize, seed: u64, rounds: u32) -> u64 {
        let mut memory = vec![0; words];
        let mut job = Job::prepare(&task(kind, words * WORD, seed), &mut memory).unwrap();
        (0..rounds).for_each(|_| job.round(&mut memory));
        job.value()
    }

    /// Computed once, elsewhere: in Python, step for step as the documentation says.
    #[test]
    fn results_are_what_they_are_on_every_machine() {
        assert_eq!(done(Kind::Integer, 0, 1, 2), EXPECTED_INTEGER);
        assert_eq!(done(Kind::Floating, 0, 1, 2), EXPECTED_FLOATING);
    }

    const EXPECTED_INTEGER: u64 = 0x921d_92f0_f610_057e;
    const EXPECTED_FLOATING: u64 = 0x3fef_eabd_7c56_4fac;

    #[test]
    fn what_needs_a_kernel_or_more_memory_is_not_prepared() {
        for kind in Kind::ALL {
            let least = kind.least_memory() as usize / WORD;
            let mut memory = vec![0; least];
            assert_eq!(Job::prepare(&task(kind, 0, 1), &mut memory).is_some(), !kind.needs_kernel(), "{kind:?}");
            if least > 0 {
                assert!(Job::prepare(&task(kind, 0, 1), &mut memory[1..]).is_none(), "{kind:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_chase_passes_through_every_line_once(lines in 64_usize..2000, seed: u64) {
            let mut memory = vec![0; lines * LINE];
            link(&mut memory, seed);
            let mut seen = vec![false; lines];
            let mut position = 0;
            for _ in 0..lines {
                prop_assert!(!std::mem::replace(&mut seen[position / LINE], true));
                position = memory[position] as usize;
                prop_assert_eq!(position % LINE, 0);
            }
            prop_assert_eq!(position, 0);
        }

        #[test]
        fn rounds_are_the_same_again_and_seeds_differ(kind in 0_usize..4, pieces in 3_usize..9, extra in 0_usize..100, seed: u64) {
            let (kind, words) = (Kind::ALL[kind], pieces * PIECE + extra);
            prop_assert_eq!(done(kind, words, seed, 5), done(kind, words, seed, 5));
            if kind != Kind::Chase {
                prop_assert_ne!(done(kind, words, seed, 5), done(kind, words, seed ^ (1 << 40), 5));
            }
        }
    }

    #[test]
    fn streams_are_written_from_end_to_end() {
        let mut memory = vec![0; 3 * 2 * PIECE];
        let mut job = Job::prepare(&task(Kind::Stream, 0, 7), &mut memory).unwrap();
        (0..2).for_each(|_| job.round(&mut memory));
        let (a, rest) = memory.split_at(2 * PIECE);
        let (b, c) = rest.split_at(2 * PIECE);
        assert!(a.iter().zip(b).zip(c).all(|((a, b), c)| *a == b.wrapping_add(c.wrapping_mul(3))));
    }
}
