//! What the guest's programs have written and nobody has taken yet. The guest is not trusted with more than to write bytes: what it
//! may have under way is bounded for each stream, and whatever breaks a bound is heard no more.

use crate::snapshot::devices::SessionState;
use isobench_workload::guest::{FIRST, Kind, MOST_PROGRAMS, TOLD_AT_ONCE, WINDOW};
use std::collections::{BTreeMap, VecDeque};

/// The guest has broken a bound, or says what makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The two outputs of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Output,
    Error,
}

/// One program's streams.
#[derive(Debug, Default)]
pub(super) struct Stream {
    output: VecDeque<u8>,
    error: VecDeque<u8>,
    /// Bytes that were taken and of which the guest has not been told yet.
    untold: usize,
    /// Bytes of input that the guest has not said to have taken.
    under_way: usize,
    /// The exit status, once the program has ended.
    pub(super) status: Option<u8>,
    /// Whether nobody wants its output any more.
    abandoned: bool,
}

impl Stream {
    /// What waits of an output.
    pub(super) fn waiting(&self, source: Source) -> &VecDeque<u8> {
        match source {
            Source::Output => &self.output,
            Source::Error => &self.error,
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.output.is_empty() && self.error.is_empty()
    }

    /// So many bytes of an output have been taken.
    pub(super) fn took(&mut self, source: Source, count: usize) {
        let queue = match source {
            Source::Output => &mut self.output,
            Source::Error => &mut self.error,
        };
        let count = count.min(queue.len());
        queue.drain(..count);
        self.untold += count;
    }

    /// Takes and forgets what waits of an output: nobody reads it any more.
    pub(super) fn lose(&mut self, source: Source) {
        self.took(source, usize::MAX);
    }

    /// What the guest is to be told of bytes taken, where it is time for that.
    pub(super) fn news(&mut self) -> Option<u32> {
        (self.untold >= TOLD_AT_ONCE).then(|| std::mem::take(&mut self.untold) as u32)
    }

    /// How many bytes of input may be given now.
    pub(super) fn room(&self) -> usize {
        WINDOW.saturating_sub(self.under_way)
    }

    /// So many bytes of input have been given.
    pub(super) fn gave(&mut self, count: usize) {
        self.under_way += count;
    }
}

/// All streams of a guest.
#[derive(Debug)]
pub(super) struct Streams {
    streams: BTreeMap<u32, Stream>,
    next: u32,
    /// Whether the first program has ended, and the guest waits until all that it wrote is taken.
    last: bool,
    answered: bool,
    /// Whether the guest has broken a bound.
    deaf: bool,
}

impl Streams {
    /// That of the first program.
    pub(super) fn new() -> Self {
        let streams = BTreeMap::from([(FIRST, Stream::default())]);
        Self { streams, next: FIRST + 1, last: false, answered: false, deaf: false }
    }

    /// What a snapshot must hold of them.
    pub(super) fn save(&self, begun: &[u8]) -> SessionState {
        let state = |(number, stream): (&u32, &Stream)| {
            (*number, stream.output.len() + stream.error.len() + stream.untold, stream.under_way.min(WINDOW))
        };
        SessionState {
            begun: begun.to_vec(),
            streams: self.streams.iter().map(state).collect(),
            next: self.next,
            last: self.last,
            answered: self.answered,
            deaf: self.deaf,
        }
    }

    /// Those of a guest that goes on from a snapshot. Nobody here wants what its further programs write: the numbers of these.
    pub(super) fn go_on(state: &SessionState) -> (Self, Vec<u32>) {
        let SessionState { next, last, answered, deaf, .. } = *state;
        let mut streams = BTreeMap::new();
        for (number, held, under_way) in &state.streams {
            let (untold, under_way, abandoned) = (*held, *under_way, *number != FIRST);
            streams.insert(*number, Stream { untold, under_way, abandoned, ..Stream::default() });
        }
        let further = streams.keys().copied().filter(|number| *number != FIRST).collect();
        (Self { streams, next, last, answered, deaf }, further)
    }

    /// Takes what the guest says; after something that it must not say, nothing more.
    pub(super) fn take(&mut self, kind: Kind, stream: u32, payload: &[u8]) -> Result<(), Broken> {
        if self.deaf {
            return Err(Broken);
        }
        let taken = self.listen(kind, stream, payload);
        self.deaf = taken.is_err();
        taken
    }

    fn listen(&mut self, kind: Kind, number: u32, payload: &[u8]) -> Result<(), Broken> {
        // What comes for a stream that has ended is late.
        let stream = self.streams.get_mut(&number);
        match (kind, stream) {
            (Kind::Output | Kind::Error, Some(stream)) => {
                let held = stream.output.len() + stream.error.len() + stream.untold;
                if held + payload.len() > WINDOW || stream.status.is_some() {
                    return Err(Broken);
                }
                if stream.abandoned {
                    stream.untold += payload.len();
                } else if kind == Kind::Output {
                    stream.output.extend(payload);
                } else {
                    stream.error.extend(payload);
                }
            }
            (Kind::Credit, Some(stream)) => {
                let count = <[u8; 4]>::try_from(payload).map(u32::from_le_bytes).map_err(|_| Broken)?;
                stream.under_way = stream.under_way.saturating_sub(count as usize);
            }
            (Kind::Exited, Some(stream)) if number != FIRST => {
                let &[status] = payload else { return Err(Broken) };
                stream.status = Some(status);
            }
            (Kind::Exited, Some(_)) => return Err(Broken),
            (Kind::Last, _) => self.last = true,
            // The others go the other way.
            _ => {}
        }
        self.streams.retain(|_, stream| !(stream.abandoned && stream.status.is_some()));
        Ok(())
    }

    /// Whether the guest is heard no more.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Hears the guest no more.
    pub(super) fn deafen(&mut self) {
        self.deaf = true;
    }

    /// A new stream, where there are not too many.
    pub(super) fn open(&mut self) -> Option<u32> {
        // The first is one of them.
        if self.streams.len() >= MOST_PROGRAMS {
            return None;
        }
        let number = self.next;
        self.next = self.next.checked_add(1)?;
        self.streams.insert(number, Stream::default());
        Some(number)
    }

    /// A stream, where there is it still.
    pub(super) fn get(&mut self, number: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&number)
    }

    /// The stream's end is known to whoever wanted to know it.
    pub(super) fn close(&mut self, number: u32) {
        self.streams.remove(&number);
    }

    /// Nobody wants a stream's output any more. It stays until its program has ended, since its number must not be given again.
    pub(super) fn abandon(&mut self, number: u32) {
        let Some(stream) = self.streams.get_mut(&number) else { return };
        stream.lose(Source::Output);
        stream.lose(Source::Error);
        stream.abandoned = true;
        if stream.status.is_some() {
            self.streams.remove(&number);
        }
    }

    /// Every stream with what the guest is to be told of it.
    pub(super) fn news(&mut self) -> Vec<(u32, u32)> {
        self.streams.iter_mut().filter_map(|(number, stream)| Some((*number, stream.news()?))).collect()
    }

    /// Whether the guest is to be told, now and once, that all has been taken.
    pub(super) fn all_taken(&mut self) -> bool {
        let first = self.streams.get(&FIRST).is_none_or(Stream::is_empty);
        let now = self.last && first && !self.answered;
        self.answered |= now;
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_guest_cannot_have_more_kept_than_its_window() {
        let mut streams = Streams::new();
        streams.take(Kind::Output, FIRST, &vec![1; WINDOW - 1]).unwrap();
        streams.take(Kind::Error, FIRST, &[2]).unwrap();
        assert_eq!(streams.take(Kind::Error, FIRST, &[3]), Err(Broken));
        // Whoever broke it once is not believed again.
        streams.get(FIRST).unwrap().took(Source::Output, WINDOW);
        assert_eq!(streams.take(Kind::Output, FIRST, &[4]), Err(Broken));
    }

    #[test]
    fn what_was_taken_counts_until_the_guest_is_told() {
        let mut streams = Streams::new();
        streams.take(Kind::Output, FIRST, &vec![1; WINDOW]).unwrap();
        streams.get(FIRST).unwrap().took(Source::Output, TOLD_AT_ONCE - 1);
        assert_eq!(streams.news(), []);
        streams.get(FIRST).unwrap().took(Source::Output, 1);
        assert_eq!(streams.news(), [(FIRST, TOLD_AT_ONCE as u32)]);
        streams.take(Kind::Output, FIRST, &vec![1; TOLD_AT_ONCE]).unwrap();
        assert_eq!(streams.take(Kind::Output, FIRST, &[1]), Err(Broken));
    }

    #[test]
    fn the_guest_is_told_once_that_all_is_taken() {
        let mut streams = Streams::new();
        streams.take(Kind::Output, FIRST, b"end").unwrap();
        streams.take(Kind::Last, FIRST, &[]).unwrap();
        assert!(!streams.all_taken());
        streams.get(FIRST).unwrap().took(Source::Output, 3);
        assert!(streams.all_taken());
        streams.take(Kind::Last, FIRST, &[]).unwrap();
        assert!(!streams.all_taken());
    }

    #[test]
    fn streams_are_bounded_in_number_and_an_abandoned_one_goes_with_its_program() {
        let mut streams = Streams::new();
        let opened: Vec<_> = std::iter::from_fn(|| streams.open()).collect();
        assert_eq!(opened.len(), MOST_PROGRAMS - 1);
        streams.take(Kind::Output, opened[0], b"unread").unwrap();
        streams.abandon(opened[0]);
        streams.take(Kind::Output, opened[0], b"more").unwrap();
        assert!(streams.get(opened[0]).unwrap().is_empty() && streams.open().is_none());
        streams.take(Kind::Exited, opened[0], &[9]).unwrap();
        assert_ne!(streams.open(), Some(opened[0]));
        // The first program's end is the guest's own.
        assert_eq!(streams.take(Kind::Exited, FIRST, &[0]), Err(Broken));
    }

    #[test]
    fn a_clone_counts_what_its_guest_counts_and_has_none_of_it() {
        let mut streams = Streams::new();
        let further = streams.open().unwrap();
        streams.take(Kind::Output, FIRST, &vec![1; TOLD_AT_ONCE]).unwrap();
        streams.get(FIRST).unwrap().gave(7);
        let (mut clone, abandoned) = Streams::go_on(&streams.save(b"begun"));
        assert_eq!(abandoned, [further]);
        let first = clone.get(FIRST).unwrap();
        assert!(first.is_empty() && first.room() == WINDOW - 7);
        assert_eq!(clone.news(), [(FIRST, TOLD_AT_ONCE as u32)]);
        assert_ne!(clone.open(), Some(further));
        clone.take(Kind::Exited, further, &[9]).unwrap();
        assert!(clone.get(further).is_none());
    }

    proptest! {
        #[test]
        fn no_talk_of_a_guest_makes_it_keep_more(
            said in prop::collection::vec((0..6_u8, 0..4_u32, prop_oneof![0..6_usize, 0..70_000_usize], any::<u8>()), 0..20)
        ) {
            let mut streams = Streams::new();
            streams.open();
            streams.open();
            streams.abandon(2);
            let kinds = [Kind::Output, Kind::Error, Kind::Credit, Kind::Exited, Kind::Last, Kind::Start];
            for (kind, number, length, byte) in said {
                let _ = streams.take(kinds[usize::from(kind)], number, &vec![byte; length]);
                for number in 0..4 {
                    if let Some(stream) = streams.get(number) {
                        prop_assert!(stream.output.len() + stream.error.len() <= WINDOW);
                        prop_assert!(stream.room() <= WINDOW);
                    }
                }
            }
        }
    }
}
