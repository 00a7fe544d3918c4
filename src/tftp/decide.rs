//! One transfer: what to send next, from what the client said and the time. Blocks are counted
//! from 1 without wrapping; only their low 16 bits are on the wire (0 follows 65535).
//!
//! The client clocks the transfer. A block goes out again on time-out only, with one exception
//! that RFC 7440 section 4 makes for windows: an acknowledgement short of the window's end tells
//! of a gap, and the transfer goes back to it.
//!
//! That exception is the old Sorcerer's Apprentice again, because EDK2 acknowledges
//! `expected - 1` for every packet out of order, those it has already got included: every block
//! sent twice would bring an acknowledgement that brings another window, to the end. So a transfer
//! that has gone back knows how many acknowledgements the blocks still under way can explain, and
//! takes none of these for a new gap.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::wire::{self, Accepted, Options};

/// What the client gets if it asks for no timeout (RFC 2349).
const TIMEOUT: Duration = Duration::from_secs(1);
/// Waits double up to this, or stay at what the client asked for if that is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Resends to a client that has never answered: with the first send, a forged request costs 4
/// datagrams.
const RESENDS_UNANSWERED: u8 = 3;
/// No client repeats its request faster than this.
const DOUBLED: Duration = Duration::from_millis(250);
/// Resends without progress to a client that has answered.
const RESENDS: u8 = 5;
/// When a full socket is tried again, and how many times before it counts as a loss.
const STALL: Duration = Duration::from_millis(10);
const STALLS: u8 = 100;
/// RFC 1350.
const BLOCK: u16 = 512;
/// Bytes of the headers of IPv4 and UDP.
const IP_UDP: usize = 28;

/// What the server is ready to grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Bytes. The interface's MTU less 32 (IP, UDP and TFTP headers) keeps blocks from being
    /// fragmented, and many a PXE stack drops fragments; RFC 2348 lets a server answer less than
    /// was asked.
    pub blksize: u16,
    /// Blocks, at most [`WINDOW_LIMIT`].
    pub windowsize: u16,
}

/// The largest window: what firmware asks for is 4 to 64, and the kernel takes about as many
/// segments at once.
pub const WINDOW_LIMIT: u16 = 64;

/// What is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    /// The OACK.
    Options,
    /// The DATA blocks from `first` to `last`, both included.
    Blocks { first: u64, last: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Send(Flight),
    Wait,
    End(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last block is acknowledged.
    Done,
    /// The client has not answered to the last resend.
    TimedOut,
}

/// About a hundred bytes; the content is not in it.
#[derive(Debug)]
pub struct Transfer {
    len: u64,
    blksize: u16,
    window: u16,
    timeout: Duration,
    oack: Option<Accepted>,
    /// Whether the client has acknowledged anything.
    answered: bool,
    /// The last block acknowledged, and the last one sent; 0 is none.
    acked: u64,
    sent: u64,
    /// The last block that was sent when the transfer went back last. While `acked` is short of
    /// it, blocks are under way twice.
    stale: u64,
    /// Acknowledgements without news that the blocks under way twice can still explain.
    excused: u64,
    /// Resends since the last progress.
    tries: u8,
    /// What a full socket has not taken, and how many times in a row.
    unsent: Option<Flight>,
    stalls: u8,
    resent: u64,
    due: Instant,
    /// When an unanswered client was last sent something.
    spoke: Instant,
}

impl Transfer {
    /// A transfer of `len` bytes and the first thing to send: the OACK if there is an option that
    /// we take, the first block otherwise. Either is one datagram, so that whoever forges a
    /// request gains little.
    pub fn begin(len: u64, asked: &Options, caps: Caps, now: Instant) -> (Transfer, Flight) {
        let accepted = accept(asked, len, caps);
        let timeout = accepted.timeout.map_or(TIMEOUT, |s| Duration::from_secs(s.into()));
        let oack = (accepted != Accepted::default()).then_some(accepted);
        let transfer = Transfer {
            len,
            blksize: accepted.blksize.unwrap_or(BLOCK),
            window: accepted.windowsize.unwrap_or(1),
            timeout,
            oack,
            answered: false,
            acked: 0,
            sent: if oack.is_some() { 0 } else { 1 },
            stale: 0,
            excused: 0,
            tries: 0,
            unsent: None,
            stalls: 0,
            resent: 0,
            due: now + timeout,
            spoke: now,
        };
        let first = transfer.outstanding();
        (transfer, first)
    }

    /// The client acknowledges the block with these low 16 bits.
    pub fn ack(&mut self, number: u16, now: Instant) -> Step {
        if !self.answered && self.oack.is_some() {
            return if number == 0 { self.fresh(0, now) } else { Step::Wait };
        }
        let block = self.acked + u64::from(number.wrapping_sub(self.acked as u16));
        match block {
            b if b > self.sent => Step::Wait,
            b if b == self.acked => self.repeated(now),
            b if b == self.last() => Step::End(End::Done),
            b if b == self.sent => self.fresh(b, now),
            b => self.partly(b, now),
        }
    }

    /// The whole window has arrived: the next one.
    fn fresh(&mut self, block: u64, now: Instant) -> Step {
        // After going back, the duplicates may still be answered; after that, nothing is excused.
        if self.acked >= self.stale {
            self.excused = 0;
        }
        self.progress(block);
        self.extend(now)
    }

    /// A part of the window has arrived. If blocks are under way twice, the client most likely
    /// answers to one of those and the rest of the window is on its way: only what the window has
    /// room for is added. Otherwise there is a gap.
    fn partly(&mut self, block: u64, now: Instant) -> Step {
        let twice = block <= self.stale;
        self.progress(block);
        if twice { self.extend(now) } else { self.go_back(now) }
    }

    /// What was acknowledged before is acknowledged again. In lock-step that says nothing (RFC
    /// 1123 section 4.2.3.1); with a window it is a gap right behind it, once.
    fn repeated(&mut self, now: Instant) -> Step {
        if self.window == 1 || self.sent == self.acked || self.tries >= RESENDS {
            Step::Wait
        } else if self.excused > 0 {
            self.excused -= 1;
            Step::Wait
        } else {
            self.tries += 1;
            self.go_back(now)
        }
    }

    fn progress(&mut self, block: u64) {
        self.answered = true;
        self.acked = block;
        self.tries = 0;
        self.stalls = 0;
    }

    /// Sends what the window has room for behind what is sent.
    fn extend(&mut self, now: Instant) -> Step {
        self.due = now + self.wait();
        let first = match self.unsent.take() {
            Some(Flight::Blocks { first, .. }) => first.max(self.acked + 1),
            _ => self.sent + 1,
        };
        let last = self.window_end();
        if first > last {
            return Step::Wait;
        }
        self.sent = last;
        Step::Send(Flight::Blocks { first, last })
    }

    /// Sends the window behind the last acknowledged block, whether it was sent before or not.
    fn go_back(&mut self, now: Instant) -> Step {
        self.due = now + self.wait();
        self.unsent = None;
        self.excused = self.sent - self.acked;
        self.resent += self.excused;
        self.stale = self.sent;
        self.sent = self.sent.max(self.window_end());
        Step::Send(self.outstanding())
    }

    /// Whether an ERROR now means that the client only wanted the size: EDK2 takes the OACK and
    /// says ERROR 8; PXE ROMs do the same with ERROR 0.
    pub fn probe(&self) -> bool {
        !self.answered && self.oack.is_some_and(|o| o.tsize.is_some())
    }

    /// The same request has come once more while nothing was acknowledged: its answer once more,
    /// one datagram for one datagram.
    ///
    /// Each answer counts as one of the resends, so that a forged request brings four datagrams
    /// however often it is repeated: `None` once they are used up. And none for one that comes at
    /// once: the network has doubled it, and atftp gives up at a second OACK.
    pub fn again(&mut self, now: Instant) -> Option<Flight> {
        if self.tries >= RESENDS_UNANSWERED || now < self.spoke + DOUBLED {
            return None;
        }
        self.tries += 1;
        self.spoke = now;
        self.due = now + self.wait();
        Some(self.outstanding())
    }

    /// The time has come, or not yet.
    pub fn tick(&mut self, now: Instant) -> Step {
        if now < self.due {
            return Step::Wait;
        }
        if let Some(rest) = self.unsent.take() {
            self.due = now + self.wait();
            return Step::Send(rest);
        }
        if self.tries >= if self.answered { RESENDS } else { RESENDS_UNANSWERED } {
            return Step::End(End::TimedOut);
        }
        self.tries += 1;
        self.spoke = now;
        if self.sent == 0 {
            self.due = now + self.wait();
            return Step::Send(Flight::Options);
        }
        self.go_back(now)
    }

    /// The socket was full: this is what it has not taken. It is tried again soon, and that does
    /// not count as a time-out, unless it goes on for long.
    pub fn unsent(&mut self, rest: Flight, now: Instant) {
        if self.stalls < STALLS {
            self.stalls += 1;
            self.unsent = Some(rest);
            self.due = now + STALL;
        }
    }

    /// Bytes of the first answer on the wire, with IP's and UDP's headers.
    pub fn first_bytes(&self) -> usize {
        let first = (self.span(1).end as usize).saturating_add(wire::DATA_HEAD);
        IP_UDP + self.oack.as_ref().map_or(first, |oack| wire::oack(oack).len())
    }

    /// When [`Transfer::tick`] has something to do.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Which bytes of the content a block holds; none for the one behind a content whose length is
    /// a multiple of the block size.
    pub fn span(&self, block: u64) -> Range<u64> {
        let size = u64::from(self.blksize);
        let start = (block.saturating_sub(1) * size).min(self.len);
        start..(start + size).min(self.len)
    }

    pub fn oack(&self) -> Option<&Accepted> {
        self.oack.as_ref()
    }

    pub fn answered(&self) -> bool {
        self.answered
    }

    /// Bytes of the whole content.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Bytes that the client has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.span(self.acked + 1).start
    }

    pub fn blksize(&self) -> u16 {
        self.blksize
    }

    pub fn windowsize(&self) -> u16 {
        self.window
    }

    /// Blocks that were sent more than once.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// The transfer ends with the first block that is not full (RFC 1350 section 6).
    fn last(&self) -> u64 {
        self.len / u64::from(self.blksize) + 1
    }

    fn window_end(&self) -> u64 {
        (self.acked + u64::from(self.window)).min(self.last())
    }

    /// What is sent and not acknowledged.
    fn outstanding(&self) -> Flight {
        match self.sent {
            0 => Flight::Options,
            last => Flight::Blocks { first: self.acked + 1, last },
        }
    }

    /// 1, 2, 4, 8, 8… seconds, or what the client asked for.
    fn wait(&self) -> Duration {
        (self.timeout * (1 << self.tries.min(3))).min(LONGEST_WAIT.max(self.timeout))
    }
}

/// The options that hold. A value beyond its RFC's range is as if it were not asked for; one that
/// we can't do is answered with the most that we can, where the RFC lets the server do so.
fn accept(asked: &Options, len: u64, caps: Caps) -> Accepted {
    let at_most = |value: u64, most: u16| most.min(u16::try_from(value).unwrap_or(u16::MAX));
    Accepted {
        // RFC 2348: 8 to 65464; the server may answer less.
        blksize: asked
            .blksize
            .filter(|&b| b >= 8)
            .map(|b| at_most(b, caps.blksize.clamp(8, 65464))),
        // RFC 2349: 1 to 255; the server takes this very value or does not answer it.
        timeout: asked.timeout.and_then(|t| u8::try_from(t).ok()).filter(|&t| t > 0),
        // RFC 2349: in a read request the value is 0, and the answer is the size.
        tsize: asked.tsize.map(|_| len),
        // RFC 7440: 1 to 65535; the server may answer less.
        windowsize: asked
            .windowsize
            .filter(|&w| w >= 1)
            .map(|w| at_most(w, caps.windowsize.clamp(1, WINDOW_LIMIT))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const CAPS: Caps = Caps { blksize: 65464, windowsize: 64 };

    fn blocks(first: u64, last: u64) -> Step {
        Step::Send(Flight::Blocks { first, last })
    }

    fn asked(blksize: u64, windowsize: u64) -> Options {
        Options { blksize: Some(blksize), windowsize: Some(windowsize), ..Options::default() }
    }

    /// What a client does with a packet that it does not expect.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Habit {
        /// RFC 7440: one acknowledgement at a gap, and of the duplicates only what was
        /// acknowledged before.
        Once,
        /// EDK2: an acknowledgement for each, duplicates too. iPXE does so in lock-step.
        Each,
    }

    /// What a network does with the nth packet that it carries.
    #[derive(Clone, Copy)]
    enum Fate {
        Arrive,
        Lose,
        Twice,
        /// Behind the one after it.
        Late,
    }

    struct Outcome {
        got: Vec<Range<u64>>,
        blocks_sent: u64,
        took: Duration,
        end: Option<End>,
    }

    /// Runs a transfer between [`Transfer`] and a client over a network, by a clock of its own.
    fn exchange(
        len: u64,
        options: &Options,
        habit: Habit,
        mut data: impl FnMut(u64) -> Fate,
        mut ack: impl FnMut(u64) -> Fate,
    ) -> Outcome {
        let start = Instant::now();
        let mut now = start;
        let (mut server, first) = Transfer::begin(len, options, CAPS, now);
        let mut out = Outcome { got: Vec::new(), blocks_sent: 0, took: Duration::ZERO, end: None };
        let (window, size) = (server.windowsize(), u64::from(server.blksize()));
        let (mut to_client, mut to_server) = (VecDeque::new(), VecDeque::new());
        let (mut expected, mut count, mut gap, mut nth_ack) = (1u64, 0, false, 0);
        let mut step = Step::Send(first);
        loop {
            match step {
                Step::Send(Flight::Options) => to_client.push_back(0),
                Step::Send(Flight::Blocks { first, last }) => {
                    for block in first..=last {
                        out.blocks_sent += 1;
                        carry(&mut to_client, block, data(out.blocks_sent));
                    }
                }
                Step::Wait => {}
                Step::End(end) => {
                    out.end = Some(end);
                    out.took = now - start;
                    return out;
                }
            }
            while let Some(block) = to_client.pop_front() {
                let done = expected > len / size + 1;
                let mut answer = |number: u64| {
                    nth_ack += 1;
                    carry(&mut to_server, number as u16, ack(nth_ack));
                };
                if block == 0 {
                    answer(0);
                } else if block == expected && !done {
                    out.got.push(server.span(block));
                    (expected, count, gap) = (expected + 1, count + 1, false);
                    if count == window || expected > len / size + 1 {
                        count = 0;
                        answer(block);
                    }
                } else if habit == Habit::Each
                    || (block > expected && !gap)
                    || block == expected - 1
                {
                    (count, gap) = (0, true);
                    answer(expected - 1);
                }
            }
            step = match to_server.pop_front() {
                Some(number) => server.ack(number, now),
                None => {
                    now = now.max(server.due());
                    server.tick(now)
                }
            };
        }
    }

    fn carry<T: Copy>(queue: &mut VecDeque<T>, packet: T, fate: Fate) {
        match fate {
            Fate::Arrive => queue.push_back(packet),
            Fate::Lose => {}
            Fate::Twice => queue.extend([packet, packet]),
            Fate::Late => queue.push_front(packet),
        }
    }

    fn whole(outcome: &Outcome, len: u64) -> bool {
        let mut at = 0;
        let joined = outcome.got.iter().all(|span| {
            let fits = span.start == at;
            at = span.end;
            fits
        });
        joined && at == len && outcome.end == Some(End::Done)
    }

    fn arrive(_: u64) -> Fate {
        Fate::Arrive
    }

    #[test]
    fn every_size_ends_with_a_short_block() {
        for (len, options, blocks) in [
            (0, Options::default(), 1),
            (511, Options::default(), 1),
            (512, Options::default(), 2),
            (513, Options::default(), 2),
            (1428 * 3, asked(1428, 1), 4),
            (65464, asked(65464, 1), 2),
            (8 * 65536 + 3, asked(8, 1), 65537),
            (8 * 200_000, asked(8, 64), 200_001),
        ] {
            let done = exchange(len, &options, Habit::Each, arrive, arrive);
            assert!(whole(&done, len), "{len} {options:?}");
            assert_eq!((done.blocks_sent, done.took), (blocks, Duration::ZERO), "{len}");
        }
    }

    #[test]
    fn options_are_taken_by_their_rfc() {
        let now = Instant::now();
        for (asked, blksize) in [(7, 512), (8, 8), (1428, 1428), (65464, 65464), (65465, 65464)] {
            let options = Options { blksize: Some(asked), ..Options::default() };
            let (t, _) = Transfer::begin(1, &options, CAPS, now);
            assert_eq!(t.blksize(), blksize, "{asked}");
            let stated = t.oack().and_then(|o| o.blksize);
            assert_eq!(stated, (asked >= 8).then_some(blksize), "{asked}");
        }
        let small = Caps { blksize: 1468, windowsize: 16 };
        let (t, _) = Transfer::begin(1, &asked(8192, 64), small, now);
        assert_eq!((t.blksize(), t.windowsize()), (1468, 16), "no fragments");
        for (asked, taken) in [(0, None), (1, Some(1)), (255, Some(255)), (256, None)] {
            let options = Options { timeout: Some(asked), ..Options::default() };
            let (t, first) = Transfer::begin(1, &options, CAPS, now);
            assert_eq!(t.oack().and_then(|o| o.timeout), taken);
            let want = if taken.is_some() {
                Flight::Options
            } else {
                Flight::Blocks { first: 1, last: 1 }
            };
            assert_eq!(first, want, "no option taken, no OACK");
            assert_eq!(t.due() - now, Duration::from_secs(taken.unwrap_or(1).into()));
        }
        for (asked, taken) in [(0, None), (1, Some(1)), (64, Some(64)), (65535, Some(64))] {
            let options = Options { windowsize: Some(asked), ..Options::default() };
            let (t, _) = Transfer::begin(1, &options, CAPS, now);
            assert_eq!(t.oack().and_then(|o| o.windowsize), taken);
        }
        let options = Options { tsize: Some(0), ..Options::default() };
        let (t, _) = Transfer::begin(5 << 32, &options, CAPS, now);
        assert_eq!(t.oack().and_then(|o| o.tsize), Some(5 << 32));
    }

    #[test]
    fn lock_step_by_the_clock() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (mut t, first) = Transfer::begin(1000, &Options::default(), CAPS, start);
        assert_eq!(first, Flight::Blocks { first: 1, last: 1 });
        for (row, got, want) in [
            ("too early", t.tick(at(999)), Step::Wait),
            ("DATA 1 or ACK 1 lost", t.tick(at(1000)), blocks(1, 1)),
            ("waits twice as long", t.tick(at(2999)), Step::Wait),
            ("lost again", t.tick(at(3000)), blocks(1, 1)),
            ("an ACK of nothing", t.ack(0, at(3001)), Step::Wait),
            ("an ACK of what was not sent", t.ack(2, at(3002)), Step::Wait),
            ("arrived", t.ack(1, at(3003)), blocks(2, 2)),
            ("the duplicate's ACK sends nothing", t.ack(1, at(3004)), Step::Wait),
            ("an old one neither", t.ack(0, at(3005)), Step::Wait),
            ("the wait is short again", t.tick(at(4003)), blocks(2, 2)),
            ("done", t.ack(2, at(4010)), Step::End(End::Done)),
        ] {
            assert_eq!(got, want, "{row}");
        }
    }

    #[test]
    fn nobody_acknowledges() {
        for (options, first) in [
            (Options::default(), Flight::Blocks { first: 1, last: 1 }),
            (asked(65464, 64), Flight::Options),
            (Options { timeout: Some(255), ..Options::default() }, Flight::Options),
        ] {
            let start = Instant::now();
            let (mut t, sent) = Transfer::begin(1 << 30, &options, CAPS, start);
            assert_eq!(sent, first);
            let mut datagrams = 1;
            loop {
                match t.tick(t.due()) {
                    Step::Send(again) => assert_eq!(again, first, "one datagram, never a window"),
                    Step::End(end) => break assert_eq!(end, End::TimedOut),
                    Step::Wait => panic!("it was due"),
                }
                datagrams += 1;
            }
            assert_eq!(datagrams, 4, "a forged request");
            assert_eq!(t.again(t.due()), None, "and none more for asking again");

            // Repeated, as often as it likes: four datagrams in all, whoever made us send them.
            let (mut t, _) = Transfer::begin(1 << 30, &options, CAPS, start);
            assert_eq!(t.again(start), None, "doubled on its way");
            assert_eq!(t.again(start + DOUBLED), Some(first));
            let due = t.due();
            assert_eq!(t.tick(due), Step::Send(first));
            let at = |n: u64| due + Duration::from_millis(n);
            let repeated = (0..5000).filter(|n| t.again(at(*n)).is_some()).count();
            assert_eq!(repeated, 1);
            assert_eq!(t.tick(t.due()), Step::End(End::TimedOut));
        }
    }

    #[test]
    fn the_size_probe() {
        let now = Instant::now();
        let ovmf = Options { tsize: Some(0), ..asked(1468, 4) };
        let (mut t, _) = Transfer::begin(9999, &ovmf, CAPS, now);
        assert!(t.probe(), "OACK, then ERROR 8");
        assert_eq!(t.ack(0, now), blocks(1, 4));
        assert!(!t.probe(), "an ERROR in the middle is one");
        let (t, _) = Transfer::begin(9999, &asked(1468, 4), CAPS, now);
        assert!(!t.probe(), "the size was not asked for");
    }

    #[test]
    fn a_gap_goes_back_once() {
        let now = Instant::now();
        let (mut t, _) = Transfer::begin(512 * 99, &asked(512, 4), CAPS, now);
        for (row, ack, want) in [
            ("the OACK", 0, blocks(1, 4)),
            ("a whole window", 4, blocks(5, 8)),
            ("6 is lost: 7 brings", 5, blocks(6, 9)),
            ("and 8 brings", 5, Step::Wait),
            ("the window again, whole", 9, blocks(10, 13)),
            ("10 is lost: 11 brings, excused as a duplicate's", 9, Step::Wait),
            ("and 12", 9, Step::Wait),
            ("and 13 is one too many", 9, blocks(10, 13)),
        ] {
            assert_eq!(t.ack(ack, now), want, "{row}");
        }
    }

    /// One packet of every place in a window, for every window and both habits.
    #[test]
    fn a_loss_anywhere_in_a_window() {
        for window in [1, 2, 3, 4, 7, 16, 33, 63, 64] {
            for lost in 1..=2 * window + 1 {
                for habit in [Habit::Once, Habit::Each] {
                    let len = 8 * (5 * window + 3);
                    let fate = |n| if n == lost { Fate::Lose } else { Fate::Arrive };
                    let done = exchange(len, &asked(8, window), habit, fate, arrive);
                    let at = format!("window {window}, lost {lost}, {habit:?}");
                    assert!(whole(&done, len), "{at}");
                    assert!(done.took <= Duration::from_secs(2), "{at}: {:?}", done.took);
                    let all = len / 8 + 1;
                    assert!(done.blocks_sent <= all + 3 * window, "{at}: {}", done.blocks_sent);
                }
            }
        }
    }

    #[test]
    fn duplicates_and_disorder_do_not_multiply() {
        for window in [1, 4, 16, 64] {
            for habit in [Habit::Once, Habit::Each] {
                for odd in 1..=2 * window {
                    for fate in [Fate::Twice, Fate::Late] {
                        let len = 8 * 50 * window;
                        let net = |n| if n == odd { fate } else { Fate::Arrive };
                        for done in [
                            exchange(len, &asked(8, window), habit, net, arrive),
                            exchange(len, &asked(8, window), habit, arrive, net),
                        ] {
                            let at = format!("window {window}, odd {odd}, {habit:?}");
                            assert!(whole(&done, len), "{at}");
                            let more = done.blocks_sent - (len / 8 + 1);
                            assert!(more <= 6 * window, "{at}: {more} blocks for nothing");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_lost_acknowledgement_is_made_good_by_the_clock() {
        for lost in 1..=8 {
            for habit in [Habit::Once, Habit::Each] {
                let fate = |n| if n == lost { Fate::Lose } else { Fate::Arrive };
                let done = exchange(8 * 20, &asked(8, 4), habit, arrive, fate);
                assert!(whole(&done, 8 * 20), "lost {lost}, {habit:?}");
                let late = if lost <= 7 { 1 } else { 0 };
                assert_eq!(done.took, Duration::from_secs(late), "lost {lost}, {habit:?}");
            }
        }
    }

    /// A network that loses, doubles and reorders a tenth of all, by a seeded die.
    #[test]
    fn a_bad_network() {
        for seed in 1..=40u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut die = move |_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                match state % 60 {
                    0 | 1 => Fate::Lose,
                    2 | 3 => Fate::Twice,
                    4 | 5 => Fate::Late,
                    _ => Fate::Arrive,
                }
            };
            let window = [1, 4, 16, 64][seed as usize % 4];
            let done = exchange(8 * 3000, &asked(8, window), Habit::Each, &mut die, arrive);
            assert!(whole(&done, 8 * 3000), "seed {seed}");
            // Going back costs half a window for each odd packet, whoever counts.
            let most = 3000 * (2 + window / 8);
            assert!(done.blocks_sent < most, "seed {seed}: {}", done.blocks_sent);
        }
    }

    #[test]
    fn a_full_socket_is_no_loss() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let (mut t, _) = Transfer::begin(512 * 99, &asked(512, 8), CAPS, start);
        assert_eq!(t.ack(0, start), blocks(1, 8));
        t.unsent(Flight::Blocks { first: 5, last: 8 }, start);
        assert_eq!(t.tick(at(9)), Step::Wait);
        assert_eq!(t.tick(at(10)), blocks(5, 8));
        assert_eq!(t.ack(8, at(11)), blocks(9, 16));
        assert_eq!(t.resent(), 0);
        for _ in 0..STALLS {
            t.unsent(Flight::Blocks { first: 9, last: 16 }, t.due());
            assert_eq!(t.tick(t.due()), blocks(9, 16));
        }
        t.unsent(Flight::Blocks { first: 9, last: 16 }, t.due());
        assert_eq!((t.tick(t.due()), t.resent()), (blocks(9, 16), 8), "now it counts");
    }
}
