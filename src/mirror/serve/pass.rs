//! Straight through: bytes on their way from one URL to one client, kept by nobody.

use std::collections::VecDeque;

use bytes::Bytes;

use super::fill::{Had, WITHHELD};
use crate::mirror::No;
use crate::mirror::digest::Hasher;
use crate::mirror::fetch::{Body, Head, Trouble};
use crate::mirror::verify::Expect;

/// The bytes `at..end` of an answer that may begin before and end behind them. Where a digest is
/// known, the last [`WITHHELD`] bytes of them wait until all of the answer has been judged, and what
/// the client was given before must be of the same bytes.
pub struct Stream {
    body: Body,
    url: String,
    /// Of the next byte of the answer.
    here: u64,
    at: u64,
    end: Option<u64>,
    expect: Option<Expect>,
    proof: Option<(Expect, Hasher)>,
    had: Option<Had>,
    held: VecDeque<Bytes>,
    held_bytes: u64,
    over: bool,
}

impl Stream {
    pub fn of(
        expect: Option<Expect>,
        had: Option<Had>,
        (head, body): (Head, Body),
        at: u64,
        end: Option<u64>,
    ) -> Stream {
        let proof = expect.map(|e| (e, Hasher::like(e.digest)));
        let (url, here) = (head.url, head.from);
        let held = VecDeque::new();
        Stream { body, url, here, at, end, expect, proof, had, held, held_bytes: 0, over: false }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// The answer is cut, or is not what it must be.
    pub async fn next(&mut self) -> Result<Option<Bytes>, No> {
        loop {
            let bound = if self.proof.is_some() && !self.over { WITHHELD } else { 0 };
            if let Some(first) = self.held.front()
                && self.held_bytes - first.len() as u64 >= bound
            {
                self.held_bytes -= first.len() as u64;
                return Ok(self.held.pop_front());
            }
            if self.over {
                return Ok(None);
            }
            match self.body.chunk().await? {
                Some(bytes) if self.had.as_ref().is_none_or(|h| h.agrees(self.here, &bytes)) => {
                    self.take(bytes);
                }
                Some(_) => return Err(self.wrong()),
                None => {
                    self.judge()?;
                    self.over = true;
                }
            }
            // Without a proof nothing behind the end matters.
            if self.proof.is_none() && self.end.is_some_and(|end| self.here >= end) {
                self.over = true;
            }
        }
    }

    fn take(&mut self, bytes: Bytes) {
        if let Some((_, hasher)) = &mut self.proof {
            hasher.update(&bytes);
        }
        let len = bytes.len() as u64;
        let from = self.at.saturating_sub(self.here).min(len);
        let to = self.end.map_or(len, |end| end.saturating_sub(self.here).min(len));
        self.here += len;
        if from < to {
            // Both are at most the length of a piece in memory.
            let piece = bytes.slice(from as usize..to as usize);
            self.held_bytes += piece.len() as u64;
            self.held.push_back(piece);
        }
    }

    fn judge(&mut self) -> Result<(), No> {
        let Some((expect, hasher)) = self.proof.take() else { return Ok(()) };
        if hasher.finish() == expect.digest {
            return Ok(());
        }
        self.held.clear();
        Err(self.wrong())
    }

    fn wrong(&self) -> No {
        let url = self.url.clone();
        match self.expect {
            Some(expect) => No::Digest { path: "a file".into(), url, expect: expect.digest },
            None => No::Upstream(Trouble::Changed { url }),
        }
    }
}
