//! Where a boot stopped, and why, in plain words: a timeline and what is known beside it in, at most
//! one [`Cause`] out.
//!
//! 1. [`Seen::of`] reads the timeline once.
//! 2. What a machine's record says comes first ([`recorded`]): held, failed, installed.
//! 3. Else the farthest stage that was reached tells what is missing ([`missing`]), once the machine
//!    has been silent for longer than that stage ever is.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::event::{plain, size};
use super::{Entry, Facts, Life, Stage, State, Transfer};

/// What DHCP says, and this module reads, of a client that chose another server's offer; the
/// address follows.
pub const OTHERS_OFFER: &str = "took the offer of ";
/// What the lifecycle says of an attempt that nobody reported.
const NO_REPORT: &str = "no report came in time";
/// What it says of one that ended because the machine asked for its script again.
const RESTARTED: &str = "it started again before it reported";
/// Refusals that are about answer files have one of these.
const ANSWERS: [&str; 3] = ["other address", "has no answer", "answer file"];
/// What an answer that cannot be made is told with, and read here.
pub const UNMADE: &str = "its answer ";
/// An answer that iPXE puts into the initrd: the kernel has yet to run.
pub const CARRIED: &str = "carried";
/// Before what a machine that was only pretended was told, and did.
pub const REHEARSED: &str = "rehearsed: ";
/// What is said of a machine that is not the one that it says it is, and who it was.
const IMPOSTORS: [(&str, &str); 3] = [
    (" had the UUID ", "uuid-changed"),
    ("two machines with one MAC", "mac-twice"),
    ("asked for what was made for", "second-reader"),
];
/// Characters of somebody else's reason that are shown.
const WHY: usize = 240;

/// Where a boot stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// A key to count by: `loader-silent`.
    pub name: Cow<'static, str>,
    /// What happened, and the likeliest reason.
    pub sentence: String,
    /// What to do or to look at; empty where all is as it should be.
    pub todo: String,
}

/// What is known of a boot.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub timeline: &'a [Entry],
    pub facts: &'a Facts,
    pub life: Option<&'a Life>,
    /// Addresses of other DHCP servers that were heard of.
    pub rivals: &'a [String],
    /// Whether nothing more can come: it was started again, or long silent.
    pub over: bool,
    pub now: Timestamp,
}

/// Why a boot is where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    #[error("offered {}, never requested: another DHCP server answers faster{}", times(*.0), at(.1))]
    Rival(u32, Option<String>),
    #[error("offered {}, never requested: our offers do not reach it, or it takes none of ours", times(*.0))]
    Unheard(u32),
    #[error("it asked by DHCP, and there is nothing that it could boot: {0}")]
    NoLoader(String),
    #[error("it asked by DHCP and got no address: {0}")]
    NoAnswer(String),
    #[error(
        "it was told to fetch its loader, and never asked for it: something between us drops UDP port {0}"
    )]
    LoaderUnasked(&'static str),
    #[error("it asked for a loader and was refused: {0}")]
    LoaderRefused(String),
    #[error("its loader stopped at {0}: packets are lost on the way, or its memory is full")]
    LoaderCut(String),
    #[error(
        "asked for the loader, then for nothing: Secure Boot refuses an unsigned loader, or the loader does not run on it"
    )]
    LoaderSilentUefi,
    #[error(
        "asked for the loader, then for nothing: too little memory below 640 kB, or its network card's ROM is too old for this loader"
    )]
    LoaderSilentBios,
    #[error(
        "iPXE has started and never asked for its script: TCP port 80 does not get through, or its network has no way to us"
    )]
    NoScript,
    #[error(
        "iPXE has started and never asked for its script: HTTPS fails, for its clock is wrong or its loader does not trust our certificate"
    )]
    Https,
    #[error(
        "iPXE has its first script and never asked for its own: port 80 does not get through, or with TLS its clock is wrong or it does not trust our certificate"
    )]
    NoOwnScript,
    #[error("its script was refused: {0}")]
    Refused(String),
    #[error("it waits: {0}")]
    Waits(String),
    #[error("it shows its menu: nothing is declared or assigned for it")]
    Menu,
    #[error("it has its script and never asked for its kernel")]
    NoKernel,
    #[error("{what} stopped at {part}: out of memory? {}", has(*.memory))]
    Cut { what: &'static str, part: String, memory: Option<u64> },
    #[error("kernel{} sent, and then nothing: it has crashed, or shows its words on another console, or has no driver for its network card. {}", if *.initrd { " and initrd" } else { "" }, has(*.memory))]
    Silent { initrd: bool, memory: Option<u64> },
    #[error(
        "its system has started and has an address, and never asked for its answer file, if it has one"
    )]
    NoAnswerFile,
    #[error("its answer file was refused: {0}")]
    AnswerRefused(String),
    #[error("{0}")]
    AnswerUnmade(String),
    #[error("{0}, and was refused")]
    Impostor(String, &'static str),
    #[error("its packages stopped coming{0}")]
    Tree(String),
    #[error("it was installing, and no report came{0}")]
    NoReport(String),
    #[error("attempt {0} failed at {step}: {1}", step = .2.word())]
    Failed(u32, String, Stage),
    #[error("attempt {0} ended without a report: the machine was installing, and started again")]
    Unreported(u32),
    #[error("held after {0} failed attempts, the last at {step}: {1}", step = .2.word())]
    Held(u32, String, Stage),
    #[error("it is installed, and was sent on to its own disk: that is as it should be")]
    OwnDisk,
}

impl Cause {
    fn name(&self) -> &'static str {
        match self {
            Cause::Rival(..) => "other-dhcp-server",
            Cause::Unheard(_) => "never-requested",
            Cause::NoLoader(_) => "no-loader",
            Cause::NoAnswer(_) => "no-address",
            Cause::LoaderUnasked(_) => "loader-unasked",
            Cause::LoaderRefused(_) => "loader-refused",
            Cause::LoaderCut(_) => "loader-cut",
            Cause::LoaderSilentUefi | Cause::LoaderSilentBios => "loader-silent",
            Cause::NoScript | Cause::NoOwnScript => "no-script",
            Cause::Https => "https-failed",
            Cause::Refused(_) => "script-refused",
            Cause::Waits(_) => "waits",
            Cause::Menu => "menu",
            Cause::NoKernel => "no-kernel",
            Cause::Cut { what: "kernel", .. } => "kernel-cut",
            Cause::Cut { .. } => "initrd-cut",
            Cause::Silent { .. } => "kernel-silent",
            Cause::NoAnswerFile => "no-answer-file",
            Cause::AnswerRefused(_) => "answer-refused",
            Cause::AnswerUnmade(_) => "answer-failed",
            Cause::Impostor(_, name) => name,
            Cause::Tree(_) => "packages-stopped",
            Cause::NoReport(_) => "no-report",
            Cause::Failed(..) => "attempt-failed",
            Cause::Unreported(_) => "never-reported",
            Cause::Held(..) => "held",
            Cause::OwnDisk => "own-disk",
        }
    }

    fn todo(&self) -> &'static str {
        match self {
            Cause::Rival(..) => {
                "switch the other server off, or leave the addresses to it with [dhcp] mode = \
                 \"proxy\""
            }
            Cause::Unheard(_) => {
                "look for DHCP snooping and spanning tree on its switch port (portfast), and for \
                 another DHCP server beyond a relay"
            }
            Cause::NoLoader(_) => "give this architecture a loader: [ipxe] dir, or [ipxe.loaders]",
            Cause::NoAnswer(_) => "see to what the reason names, and start the machine again",
            Cause::LoaderUnasked(_) => {
                "let UDP ports 69 and 4011 and our answers through every firewall between us"
            }
            Cause::LoaderRefused(_) => "remove the file name that another DHCP server gives it",
            Cause::LoaderCut(_) => "check cable, switch port and firewall, then start it again",
            Cause::LoaderSilentUefi => {
                "switch Secure Boot off in its firmware, or put a signed loader into [ipxe] dir"
            }
            Cause::LoaderSilentBios => {
                "try another loader for it: loader = \"ipxe.pxe\" at its [[machine]]"
            }
            Cause::NoScript | Cause::NoOwnScript => {
                "look at its screen, and try to fetch /boot.ipxe from its network"
            }
            Cause::Https => {
                "set its clock in the firmware, and see `pilotlight explain` for the loader's HTTPS"
            }
            Cause::AnswerUnmade(_) => "mend what the reason names, and start it again",
            Cause::Impostor(_, "uuid-changed") => {
                "if it is meant to be another machine, `pilotlight machine reinstall` takes it"
            }
            Cause::Impostor(_, "mac-twice") => {
                "look for the other machine at that address: no two may have one MAC"
            }
            Cause::Impostor(..) => {
                "look for who has that address; `pilotlight machine reinstall` makes new answers"
            }
            Cause::Refused(_) | Cause::Waits(_) => "mend what the reason names; it asks again",
            Cause::Menu => "declare it, or `pilotlight machine assign` it",
            Cause::NoKernel => "look at its screen: iPXE says there what failed",
            Cause::Cut { .. } => "give it more memory, or a smaller initrd; else check its link",
            Cause::Silent { .. } => {
                "look at its screen, set `console` of its profile, and check `args`"
            }
            Cause::NoAnswerFile => {
                "check that `args` of its profile name the answer file's URL, and its network card"
            }
            Cause::AnswerRefused(_) => {
                "see whether somebody else reads its answers; start it again for new ones"
            }
            Cause::Tree(_) => "see `pilotlight status` for the mirror, and start it again",
            Cause::NoReport(_) => {
                "check that its answer file ends with the report (late_command, %post), and its \
                 screen"
            }
            Cause::Failed(..) => "it tries again at its next start from the network",
            Cause::Unreported(_) => REPORT,
            Cause::Held(_, why, step) if unreported(why, *step) => REPORT,
            Cause::Held(..) => "see to the reason, then `pilotlight machine reinstall`",
            Cause::OwnDisk => "",
        }
    }
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.sentence)?;
        match self.todo.is_empty() {
            true => Ok(()),
            false => write!(f, ". What to do: {}", self.todo),
        }
    }
}

impl From<Cause> for Diagnosis {
    fn from(cause: Cause) -> Diagnosis {
        let sentence = cause.to_string().trim_end_matches(['.', ' ']).to_string();
        Diagnosis { name: cause.name().into(), sentence, todo: cause.todo().into() }
    }
}

/// What to do where nothing reported.
const REPORT: &str = "see whether its installer had ended: then its answers do not report, and need \
                      curl -fsS {{ report }}/done at their end, or it is installed again and again";

/// Whether an attempt came as far as its installer, and ended without a word.
fn unreported(why: &str, step: Stage) -> bool {
    why == RESTARTED && step >= Stage::Answer
}

fn times(n: u32) -> String {
    match n {
        1 => "once".into(),
        2 => "twice".into(),
        3 => "three times".into(),
        n => format!("{n} times"),
    }
}

fn at(server: &Option<String>) -> String {
    server.as_ref().map(|s| format!(", {s}")).unwrap_or_default()
}

fn has(mib: Option<u64>) -> String {
    mib.map(|m| format!("It has {m} MB.")).unwrap_or_default()
}

/// `41 % (3.20 MB of 7.80 MB)`
fn part(t: &Transfer) -> String {
    let percent = (t.sent as f64 / t.total.max(1) as f64 * 100.0).min(99.0) as u8;
    format!("{percent} % ({} of {})", size(t.sent), size(t.total))
}

/// Where and why a boot stopped; nothing where it goes on, or has come to its end.
pub fn diagnose(case: &Case<'_>) -> Option<Diagnosis> {
    let seen = Seen::of(case.timeline)?;
    let cause = match recorded(case, &seen) {
        Told::Cause(cause) => Some(cause),
        Told::Well => None,
        // No kernel ever runs there.
        Told::Nothing if seen.decision.is_some_and(|d| d.starts_with(REHEARSED)) => None,
        Told::Nothing => missing(case, &seen)
            .or_else(|| seen.impostor.map(|(said, name)| Cause::Impostor(plain(said, WHY), name))),
    };
    cause.map(Diagnosis::from)
}

/// How DHCP went, of the firmware or of iPXE.
#[derive(Default)]
struct Dhcp {
    offers: u32,
    requests: u32,
    acks: u32,
    /// Without an address: the site's server gives that.
    proxied: bool,
    /// The newest offer's reason to have nothing to boot.
    nothing: Option<String>,
}

/// A file: asked for, and how it left.
#[derive(Default)]
struct Fetched {
    asked: bool,
    sent: bool,
    cut: Option<Transfer>,
}

/// What a timeline shows.
#[derive(Default)]
struct Seen<'a> {
    first: Timestamp,
    last: Timestamp,
    stage: Option<Stage>,
    firmware: Dhcp,
    ipxe: Dhcp,
    /// The server whose offer it took in place of ours.
    chosen: Option<String>,
    /// The newest refusal, and the stage it came at; gone when something else follows.
    refused: Option<&'a str>,
    /// The newest that tells of somebody who is not this machine.
    impostor: Option<(&'a str, &'static str)>,
    /// Why an answer could not be made, until one was.
    unmade: Option<&'a str>,
    /// The newest that has to do with answers.
    answer_refused: Option<&'a str>,
    loader: Fetched,
    /// iPXE's first script.
    entry: bool,
    https: bool,
    /// What its own script was decided to be.
    decision: Option<&'a str>,
    /// Why it was not what is declared.
    because: Option<&'a str>,
    kernel: Fetched,
    initrd: Fetched,
    answered: bool,
    /// Whether iPXE has put an answer into its initrd.
    carried: bool,
    system: bool,
    tree: Option<&'a str>,
    /// Whether the newest file was cut.
    tree_cut: bool,
    reported: bool,
}

impl<'a> Seen<'a> {
    fn of(timeline: &'a [Entry]) -> Option<Seen<'a>> {
        let (first, last) = (timeline.first()?.at, timeline.last()?.at);
        let mut seen = Seen { first, last, ..Seen::default() };
        for Entry { event, .. } in timeline {
            let detail = event.detail.as_str();
            seen.stage = seen.stage.max(Some(event.stage));
            if let Some(server) = others(detail) {
                seen.chosen = Some(server);
            }
            if event.what == "refused" {
                seen.refused = Some(detail);
                seen.impostor = impostor(detail).or(seen.impostor);
                seen.unmade = detail.find(UNMADE).map(|at| &detail[at..]).or(seen.unmade);
                if event.stage >= Stage::Kernel && ANSWERS.iter().any(|w| detail.contains(w)) {
                    seen.answer_refused = Some(detail);
                }
                continue;
            }
            if State::ALL.iter().any(|s| s.word() == event.what) {
                // What its record says is asked of the record.
                continue;
            }
            let refused = seen.refused.take();
            match event.stage {
                Stage::Firmware => seen.firmware.take(event.what, detail),
                Stage::Ipxe => {
                    seen.https |= detail.contains("script https://");
                    seen.ipxe.take(event.what, detail);
                }
                Stage::Loader => {
                    if let Some((_, why)) = detail.split_once(" refused: ") {
                        seen.refused = Some(why);
                    }
                    seen.loader.take(event.what, event.transfer.as_ref());
                }
                Stage::Script => match detail.split_once(".ipxe: ") {
                    Some((_, decision)) if event.what == "GET" => {
                        // A reason is told before the script that it led to.
                        (seen.decision, seen.because) = (Some(decision), refused);
                    }
                    _ => seen.entry = true,
                },
                Stage::Kernel => seen.kernel.take(event.what, event.transfer.as_ref()),
                Stage::Initrd if event.what == CARRIED => {
                    (seen.carried, seen.unmade) = (true, None);
                }
                Stage::Initrd => seen.initrd.take(event.what, event.transfer.as_ref()),
                Stage::Answer => (seen.answered, seen.unmade) = (true, None),
                Stage::System => {
                    seen.system = true;
                    match event.what {
                        "report" => seen.reported = true,
                        "sent" | "cut" => {
                            seen.tree = Some(detail);
                            seen.tree_cut = event.what == "cut";
                        }
                        _ => {}
                    }
                }
            }
        }
        Some(seen)
    }
}

/// What is said of somebody who is not this machine, and what that is called.
fn impostor(detail: &str) -> Option<(&str, &'static str)> {
    let said = detail.split(": if it is meant").next().unwrap_or(detail);
    IMPOSTORS.into_iter().find(|(words, _)| detail.contains(words)).map(|(_, name)| (said, name))
}

/// The address behind [`OTHERS_OFFER`].
fn others(detail: &str) -> Option<String> {
    let (_, rest) = detail.split_once(OTHERS_OFFER)?;
    let address = rest.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?;
    address.parse::<Ipv4Addr>().ok().map(|a| a.to_string())
}

impl Dhcp {
    fn take(&mut self, what: &str, detail: &str) {
        match what {
            "DHCPOFFER" => {
                self.offers += 1;
                self.proxied = detail.starts_with("to ");
                self.nothing = detail.split_once("nothing to boot, ").map(|(_, why)| why.into());
            }
            "DHCPREQUEST" => self.requests += 1,
            "DHCPACK" => self.acks += 1,
            _ => {}
        }
    }
}

impl Fetched {
    fn take(&mut self, what: &str, transfer: Option<&Transfer>) {
        self.asked = true;
        match what {
            "sent" => (self.sent, self.cut) = (true, None),
            "cut" => self.cut = transfer.cloned(),
            // A size that was asked for is no file yet; nor is one that a client ended itself.
            _ => {}
        }
    }
}

/// What a machine's record tells of its boot.
enum Told {
    Cause(Cause),
    /// It has come to its end.
    Well,
    Nothing,
}

fn recorded(case: &Case<'_>, seen: &Seen<'_>) -> Told {
    // It came last, and so whoever asked last is not the machine of this record.
    if let Some((said, name)) = seen
        .impostor
        .filter(|(said, _)| seen.refused.is_some_and(|newest| newest.starts_with(said)))
    {
        return Told::Cause(Cause::Impostor(plain(said, WHY), name));
    }
    let Some(life) = case.life else { return Told::Nothing };
    if let (State::Failed, Some(f)) = (life.state, &life.failure) {
        return Told::Cause(Cause::Held(life.failures, plain(&f.why, WHY), f.step));
    }
    // While the next attempt runs, what became of the one before is not where this one is.
    let waits = matches!(life.state, State::Assigned | State::Discovered);
    let failed = life.failure.as_ref().filter(|f| waits && f.at >= seen.first);
    if let Some(f) = failed.filter(|f| unreported(&f.why, f.step)) {
        return Told::Cause(Cause::Unreported(f.attempt));
    }
    if let Some(f) = failed.filter(|f| f.why != NO_REPORT) {
        return Told::Cause(Cause::Failed(f.attempt, plain(&f.why, WHY), f.step));
    }
    let local = seen.decision.is_some_and(|d| d.starts_with("local disk"));
    match life.state {
        State::Installed if local => Told::Cause(Cause::OwnDisk),
        State::Installed if seen.stage >= Some(Stage::Kernel) => Told::Well,
        _ => Told::Nothing,
    }
}

/// The first thing that should have come and has not.
fn missing(case: &Case<'_>, seen: &Seen<'_>) -> Option<Cause> {
    let silence = case.now.duration_since(seen.last);
    let silent = |seconds| case.over || silence >= SignedDuration::from_secs(seconds);
    let runs = case.life.is_some_and(|l| l.state == State::Installing);
    let timed_out = case
        .life
        .and_then(|l| l.failure.as_ref())
        .is_some_and(|f| f.at >= seen.first && f.why == NO_REPORT && !runs);
    let installs = timed_out || runs;
    let memory = case.facts.memsize;

    if let Some(why) = seen.unmade {
        return Some(Cause::AnswerUnmade(plain(why, WHY)));
    }
    let answered = seen.answered || seen.carried;
    if let Some(why) = seen.answer_refused.filter(|_| !answered || seen.refused.is_some()) {
        return Some(Cause::AnswerRefused(plain(why, WHY)));
    }
    if seen.system || seen.answered {
        let packages = seen.tree.map(|t| format!(": {}", plain(t, WHY)));
        return match (seen.refused, seen.tree_cut) {
            (Some(why), _) if silent(60) => Some(Cause::Tree(format!(": {}", plain(why, WHY)))),
            (None, true) if silent(60) => Some(Cause::Tree(packages.unwrap_or_default())),
            _ if installs && !answered && seen.tree.is_none() && !seen.reported => {
                silent(300).then_some(Cause::NoAnswerFile)
            }
            _ if installs && (timed_out || silent(1800)) => {
                Some(Cause::NoReport(packages.map(|p| format!(" after{p}")).unwrap_or_default()))
            }
            _ => None,
        };
    }
    for (what, file) in [("initrd", &seen.initrd), ("kernel", &seen.kernel)] {
        if let Some(cut) = &file.cut {
            return Some(Cause::Cut { what, part: part(cut), memory });
        }
    }
    if seen.kernel.asked || seen.initrd.asked {
        let through = |f: &Fetched| f.sent || !f.asked;
        let sent = through(&seen.kernel) && through(&seen.initrd);
        let silent = silent(if installs { 180 } else { 120 }) && sent;
        return silent.then_some(Cause::Silent { initrd: seen.initrd.sent, memory });
    }
    if let Some(decision) = seen.decision {
        let why = || plain(seen.because.unwrap_or(decision), WHY);
        return match decision.split([' ', ':']).next().unwrap_or_default() {
            "boots" | "installs" => silent(30).then_some(Cause::NoKernel),
            "refused" => {
                let why = decision.trim_start_matches("refused: ");
                Some(Cause::Refused(plain(why, WHY)))
            }
            "waits" => Some(Cause::Waits(why())),
            "menu" if case.life.is_none() => Some(Cause::Menu),
            _ => None,
        };
    }
    if seen.entry {
        return silent(30).then_some(Cause::NoOwnScript);
    }
    if seen.ipxe.acks > 0 || (seen.ipxe.offers > 0 && seen.ipxe.proxied) {
        // An iPXE that is no use to us is handed our loader like any firmware.
        let handed = seen.loader.asked || !seen.https && seen.ipxe.nothing.is_none();
        let cause = if seen.https { Cause::Https } else { Cause::NoScript };
        if let Some(why) = &seen.ipxe.nothing {
            return Some(Cause::NoLoader(plain(why, WHY)));
        }
        return (silent(30) && (handed || seen.https)).then_some(cause);
    }
    if let Some(cut) = &seen.loader.cut {
        return Some(Cause::LoaderCut(part(cut)));
    }
    if seen.loader.asked {
        if let Some(why) = seen.refused.filter(|_| !seen.loader.sent) {
            return Some(Cause::LoaderRefused(plain(why, WHY)));
        }
        let silent_loader = match case.facts.is_uefi() {
            true => Cause::LoaderSilentUefi,
            false => Cause::LoaderSilentBios,
        };
        return silent(30).then_some(silent_loader);
    }
    asked(case, seen, &silent)
}

/// Where it never came further than DHCP.
fn asked(case: &Case<'_>, seen: &Seen<'_>, silent: &dyn Fn(i64) -> bool) -> Option<Cause> {
    let dhcp = match seen.ipxe.offers > 0 || seen.ipxe.requests > 0 {
        true => &seen.ipxe,
        false => &seen.firmware,
    };
    if let Some(why) = &dhcp.nothing {
        return Some(Cause::NoLoader(plain(why, WHY)));
    }
    if dhcp.acks > 0 {
        return silent(30).then_some(Cause::LoaderUnasked("69 (TFTP)"));
    }
    if dhcp.offers > 0 && dhcp.proxied {
        return silent(30).then_some(Cause::LoaderUnasked("4011 or 69"));
    }
    let refused = seen.refused.filter(|why| !why.contains(OTHERS_OFFER));
    if let Some(why) = refused.filter(|_| dhcp.offers == 0 || dhcp.requests > 0) {
        let no_loader = why.contains("no loader") || why.contains("architecture");
        let why = plain(why, WHY);
        return Some(if no_loader { Cause::NoLoader(why) } else { Cause::NoAnswer(why) });
    }
    if dhcp.offers == 0 && seen.chosen.is_none() {
        return None;
    }
    let rival = seen.chosen.clone().or_else(|| case.rivals.first().cloned());
    let stuck = dhcp.offers > 1 || seen.chosen.is_some() || silent(10);
    stuck.then(|| match rival {
        Some(rival) => Cause::Rival(dhcp.offers.max(1), Some(rival)),
        None => Cause::Unheard(dhcp.offers),
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::model::lifecycle::{self, Attempt, Failure};
    use crate::model::{Event, Mac};

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);

    fn second(s: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + s).unwrap()
    }

    /// A timeline from lines of `stage what detail`, a second apart; `sent` and `cut` may end with
    /// `@SENT/TOTAL`.
    fn timeline(lines: &str) -> Vec<Entry> {
        let stage = |word: &str| serde_json::from_value(serde_json::json!(word)).unwrap();
        let entry = |(n, line): (usize, &str)| {
            let mut words = line.trim().splitn(3, ' ');
            let (first, what) = (words.next().unwrap(), words.next().unwrap());
            let detail = words.next().unwrap_or_default();
            let what: &'static str = String::leak(what.to_string());
            let event = match detail.split_once('@') {
                Some((name, part)) => {
                    let (sent, total) = part.split_once('/').unwrap();
                    let (sent, total) = (sent.parse().unwrap(), total.parse().unwrap());
                    Event::of(
                        stage(first),
                        Transfer { name: name.trim().into(), sent, total, millis: 100 },
                    )
                }
                None => Event::new(stage(first), what, detail),
            };
            assert_eq!(event.what, what, "{line}");
            Entry { at: second(n as i64), event }
        };
        lines.trim().lines().enumerate().map(entry).collect()
    }

    /// What is found `after` seconds of silence.
    fn found(lines: &str, arch: &'static str, life: Option<&Life>, after: i64) -> String {
        let timeline = timeline(lines);
        let facts = Facts { arch: Some(arch), memsize: Some(512), ..Facts::of(MAC) };
        let now = second(timeline.len() as i64 - 1 + after);
        let rivals = [];
        let case =
            Case { timeline: &timeline, facts: &facts, life, rivals: &rivals, over: false, now };
        diagnose(&case).map(|d| format!("{}: {}", d.name, d.sentence)).unwrap_or_default()
    }

    const OFFERED: &str = "firmware DHCPDISCOVER from m (uefi-x64) via eth1
        firmware DHCPOFFER on 10.0.0.100 to m via eth1: loader snponly.efi";
    const GIVEN: &str = "firmware DHCPREQUEST for 10.0.0.100 from m (uefi-x64) via eth1
        firmware DHCPACK on 10.0.0.100 to m via eth1: loader snponly.efi";
    const LOADED: &str = "loader TFTP snponly.efi to 10.0.0.100: wanted the size only
        loader sent snponly.efi @296448/296448";
    const SCRIPT: &str = "script sent autoexec.ipxe @1900/1900
        script GET /boot/m.ipxe: boots profile web";
    const KERNEL: &str = "kernel GET d/linux (8.22 MB)
        kernel sent d/linux @8220000/8220000
        initrd GET d/initrd.gz (40.8 MB)";
    const INITRD: &str = "initrd sent d/initrd.gz @40800000/40800000";
    const SYSTEM: &str = "system DHCPDISCOVER from m via eth1
        system DHCPACK on 10.0.0.100 to m via eth1";
    const ANSWER: &str = "answer GET preseed (157 bytes)";
    const CARRIED_ANSWER: &str = "initrd carried preseed (157 bytes)";
    const TREE: &str = "system sent package tree: 812 files @310000000/310000000";

    fn after(parts: &[&str]) -> String {
        parts.join("\n")
    }

    #[rstest]
    #[case(&[OFFERED, OFFERED, OFFERED], 5, "never-requested: offered three times, never requested")]
    #[case(
        &[OFFERED, "firmware refused it took the offer of 10.0.0.2"], 0,
        "other-dhcp-server: offered once, never requested: another DHCP server answers faster, 10.0.0.2"
    )]
    #[case(
        &[OFFERED, OFFERED, "firmware DHCPREQUEST for 10.0.0.9 from m via eth1: it took the offer of 10.0.0.2",
          "firmware refused it took the offer of 10.0.0.2"], 0,
        "other-dhcp-server: offered twice"
    )]
    #[case(&[OFFERED, GIVEN], 40, "loader-unasked: it was told to fetch its loader")]
    #[case(
        &["firmware DHCPDISCOVER x", "firmware DHCPOFFER to m via eth1: loader snponly.efi",
          "firmware DHCPREQUEST for 10.0.0.9 from m via eth1: it took the offer of 10.0.0.2"], 40,
        "loader-unasked: it was told to fetch its loader, and never asked for it: something between \
         us drops UDP port 4011 or 69"
    )]
    #[case(
        &["firmware DHCPDISCOVER x",
          "firmware DHCPOFFER on 10.0.0.9 to m via eth1: nothing to boot, no loader ipxe-ia32.efi for uefi-ia32 in this build"], 0,
        "no-loader: it asked by DHCP, and there is nothing that it could boot: no loader ipxe-ia32.efi"
    )]
    #[case(
        &["firmware DHCPDISCOVER x", "firmware refused no free address in 10.0.0.0/24: widen its range"], 0,
        "no-address: it asked by DHCP and got no address: no free address in 10.0.0.0/24"
    )]
    #[case(
        &["firmware DHCPDISCOVER x", "firmware refused architecture 77 of option 93 is in no row"], 0,
        "no-loader: "
    )]
    #[case(
        &[OFFERED, GIVEN, "loader TFTP pxelinux.0 to 10.0.0.100: refused: no such file here"], 0,
        "loader-refused: it asked for a loader and was refused: no such file here"
    )]
    #[case(&[OFFERED, GIVEN, "loader cut snponly.efi @121600/296448"], 0,
           "loader-cut: its loader stopped at 41 % (122 kB of 296 kB)")]
    #[case(&[OFFERED, GIVEN, LOADED], 60, "loader-silent: asked for the loader, then for nothing: Secure Boot")]
    #[case(
        &[OFFERED, GIVEN, LOADED, "ipxe DHCPDISCOVER x", "ipxe DHCPOFFER on 10.0.0.100 to m: script http://10.0.0.1/boot.ipxe",
          "ipxe DHCPREQUEST x", "ipxe DHCPACK on 10.0.0.100 to m: script http://10.0.0.1/boot.ipxe"], 60,
        "no-script: iPXE has started and never asked for its script: TCP port 80"
    )]
    #[case(
        &["ipxe DHCPDISCOVER x", "ipxe DHCPOFFER on 10.0.0.100 to m: script https://10.0.0.1/boot.ipxe",
          "ipxe DHCPREQUEST x", "ipxe DHCPACK on 10.0.0.100 to m: script https://10.0.0.1/boot.ipxe"], 60,
        "https-failed: iPXE has started and never asked for its script: HTTPS fails"
    )]
    #[case(
        &["ipxe DHCPDISCOVER x", "ipxe DHCPOFFER on 10.0.0.9 to m: script http://x", "ipxe DHCPOFFER on 10.0.0.9 to m: script http://x"], 20,
        "never-requested: offered twice"
    )]
    #[case(
        &["ipxe DHCPDISCOVER x", "ipxe DHCPOFFER on 10.0.0.9 to m: nothing to boot, our loader was handed out 3 times in a row and never asked for its script",
          "ipxe DHCPREQUEST x", "ipxe DHCPACK on 10.0.0.9 to m"], 0,
        "no-loader: it asked by DHCP, and there is nothing that it could boot: our loader was handed"
    )]
    #[case(&[OFFERED, GIVEN, LOADED, "script sent autoexec.ipxe @1900/1900"], 60, "no-script: iPXE has its first script")]
    #[case(
        &[OFFERED, GIVEN, "script GET /boot/m.ipxe: refused: profile web is not offered in the menu"], 0,
        "script-refused: its script was refused: profile web is not offered in the menu"
    )]
    #[case(
        &[OFFERED, GIVEN, "script refused a.cfg:2:9: no such value", "script GET /boot/m.ipxe: waits for the configuration to be mended"], 0,
        "waits: it waits: a.cfg:2:9: no such value"
    )]
    #[case(&[OFFERED, GIVEN, "script GET /boot/m.ipxe: menu: no declared machine matches"], 0, "menu: it shows its menu")]
    #[case(&[OFFERED, GIVEN, LOADED, SCRIPT], 60, "no-kernel: it has its script and never asked for its kernel")]
    #[case(
        &[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, "initrd cut d/initrd.gz @16728000/40800000"], 0,
        "initrd-cut: initrd stopped at 41 % (16.7 MB of 40.8 MB): out of memory? It has 512 MB"
    )]
    #[case(&[SCRIPT, "kernel GET d/linux", "kernel cut d/linux @0/8220000"], 0, "kernel-cut: kernel stopped at 0 %")]
    #[case(
        &[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, INITRD], 200,
        "kernel-silent: kernel and initrd sent, and then nothing"
    )]
    #[case(
        &[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, INITRD, CARRIED_ANSWER], 200,
        "kernel-silent: kernel and initrd sent, and then nothing"
    )]
    #[case(
        &[SCRIPT, "kernel GET d/linux", "kernel sent d/linux @8220000/8220000", CARRIED_ANSWER], 200,
        "kernel-silent: kernel sent, and then nothing"
    )]
    fn it_stopped(#[case] lines: &[&str], #[case] silent: i64, #[case] want: &str) {
        let got = found(&after(lines), "uefi-x64", None, silent);
        assert!(got.starts_with(want), "{got:?}");
    }

    #[test]
    fn a_bios_loader_that_does_not_run_has_another_reason() {
        let got = found(&after(&[OFFERED, GIVEN, LOADED]), "bios", None, 60);
        assert!(got.contains("then for nothing: too little memory below 640 kB"), "{got}");
    }

    /// No boot that only takes its time is said to have stopped.
    #[rstest]
    #[case(&[OFFERED], 2)]
    #[case(&[OFFERED, GIVEN], 5)]
    #[case(&[OFFERED, GIVEN, LOADED], 10)]
    #[case(&[OFFERED, GIVEN, LOADED, SCRIPT], 10)]
    #[case(&[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL], 3600)]
    #[case(&[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, INITRD], 60)]
    #[case(&[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, INITRD, SYSTEM], 3600)]
    #[case(&[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, INITRD, SYSTEM, ANSWER, TREE, "system report booted"], 3600)]
    #[case(&[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, INITRD, CARRIED_ANSWER], 60)]
    #[case(&[SCRIPT, "script GET /boot/m.ipxe: rehearsed: boots profile web", KERNEL, INITRD], 3600)]
    #[case(&[OFFERED, GIVEN, LOADED, "script GET /boot/m.ipxe: local disk: chosen in the menu"], 3600)]
    fn it_goes_on(#[case] lines: &[&str], #[case] silent: i64) {
        assert_eq!(found(&after(lines), "uefi-x64", None, silent), "");
    }

    fn life(state: State) -> Life {
        let begin = lifecycle::Begin {
            profile: "web".into(),
            boot: "b".into(),
            report: "r".into(),
            address: None,
            facts: Facts::of(MAC),
            timeout: std::time::Duration::from_secs(7200),
            attempts: 3,
            restarted: false,
            chosen: false,
        };
        let event = lifecycle::LifeEvent::Begin(Box::new(begin));
        let lifecycle::Change::To(Some(mut life)) =
            lifecycle::step(MAC, None, event, 3, second(0)).unwrap()
        else {
            panic!("an installation begins")
        };
        life.state = state;
        *life
    }

    #[rstest]
    #[case(&[SYSTEM], 400, "no-answer-file: its system has started and has an address")]
    #[case(
        &["kernel sent d/linux @8/8", "kernel refused what was made for one machine is for no other address"], 0,
        "answer-refused: its answer file was refused: what was made for one machine is for no"
    )]
    #[case(
        &[SYSTEM, ANSWER, TREE, "system refused no URL of mirror debian answers"], 90,
        "packages-stopped: its packages stopped coming: no URL of mirror debian answers"
    )]
    #[case(
        &[SYSTEM, ANSWER, "system cut package tree: 40 files, 1 of them cut @30/40"], 90,
        "packages-stopped: its packages stopped coming: package tree: 40 files"
    )]
    #[case(
        &[SYSTEM, ANSWER, TREE], 2000,
        "no-report: it was installing, and no report came after: package tree: 812 files"
    )]
    #[case(&[SYSTEM, ANSWER, TREE], 900, "")]
    #[case(&[KERNEL, INITRD], 200, "kernel-silent: ")]
    #[case(&[KERNEL, INITRD, CARRIED_ANSWER], 200, "kernel-silent: ")]
    #[case(&[KERNEL, INITRD, CARRIED_ANSWER, SYSTEM], 900, "")]
    #[case(&[KERNEL, INITRD, CARRIED_ANSWER, SYSTEM], 2000, "no-report: ")]
    fn it_stopped_while_installing(
        #[case] lines: &[&str],
        #[case] silent: i64,
        #[case] want: &str,
    ) {
        let got = found(&after(lines), "bios", Some(&life(State::Installing)), silent);
        assert!(got.starts_with(want) && got.is_empty() == want.is_empty(), "{got:?}");
    }

    #[rstest]
    #[case(
        &[OFFERED, GIVEN, "ipxe refused m had the UUID a when it was installed, and now b: if it is meant to be another machine, x"],
        "uuid-changed: m had the UUID a when it was installed, and now b, and was refused"
    )]
    #[case(
        &[SYSTEM, ANSWER, "system refused m is at 10.0.0.5 by DHCP, and 10.0.0.9 says to be it: two machines with one MAC?"],
        "mac-twice: m is at 10.0.0.5 by DHCP, and 10.0.0.9 says"
    )]
    #[case(
        &[SYSTEM, ANSWER, "answer refused 10.0.0.9 asked for what was made for m at 10.0.0.5", TREE],
        "second-reader: 10.0.0.9 asked for what was made for m at 10.0.0.5, and was refused"
    )]
    #[case(
        &[SYSTEM, "system refused GET /b/t/answer/preseed: its answer preseed cannot be made: the secret in root.hash is empty", TREE],
        "answer-failed: its answer preseed cannot be made: the secret in root.hash is empty"
    )]
    #[case(&[SYSTEM, "system refused GET /b/t/answer/preseed: its answer preseed cannot be made: x", ANSWER, TREE], "")]
    fn whoever_was_refused_is_told(#[case] lines: &[&str], #[case] want: &str) {
        let got = found(&after(lines), "bios", Some(&life(State::Installing)), 90);
        assert!(got.starts_with(want) && got.is_empty() == want.is_empty(), "{got:?}");
    }

    #[test]
    fn while_an_attempt_runs_the_one_before_is_not_told() {
        for why in ["it was started again", NO_REPORT] {
            let failure =
                Failure { at: second(3), attempt: 1, step: Stage::System, why: why.into() };
            let runs = Life { failures: 1, failure: Some(failure), ..life(State::Installing) };
            let whole = after(&[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, INITRD, SYSTEM, ANSWER]);
            assert_eq!(found(&whole, "bios", Some(&runs), 60), "");
            let ended = Life { state: State::Assigned, ..runs };
            assert_ne!(found(&whole, "bios", Some(&ended), 60), "");
        }
    }

    #[test]
    fn what_its_record_says_comes_first() {
        let whole = after(&[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, INITRD, SYSTEM, ANSWER]);
        let failure = |why: &str| {
            Some(Failure { at: second(30), attempt: 2, step: Stage::System, why: why.into() })
        };
        let held = Life { failures: 3, failure: failure("no disk"), ..life(State::Failed) };
        assert_eq!(
            found(&whole, "bios", Some(&held), 0),
            "held: held after 3 failed attempts, the last at system: no disk"
        );
        let failed = Life { failure: failure("no disk"), ..life(State::Assigned) };
        assert_eq!(
            found(&whole, "bios", Some(&failed), 0),
            "attempt-failed: attempt 2 failed at system: no disk"
        );
        let silent = Life { failure: failure(NO_REPORT), ..life(State::Assigned) };
        let got = found(&after(&[&whole, TREE]), "bios", Some(&silent), 0);
        assert!(got.starts_with("no-report: "), "{got}");
        let installed = life(State::Installed);
        assert_eq!(found(&whole, "bios", Some(&installed), 9000), "");
        let back = after(&[OFFERED, GIVEN, "script GET /boot/m.ipxe: local disk: it is installed"]);
        let got = found(&back, "bios", Some(&installed), 0);
        assert!(got.starts_with("own-disk: "), "{got}");
    }

    #[test]
    fn one_that_starts_again_without_a_report_is_told_what_its_answers_lack() {
        let whole = after(&[OFFERED, GIVEN, LOADED, SCRIPT, KERNEL, INITRD, SYSTEM, ANSWER]);
        let told = |state, step| {
            let failure =
                Some(Failure { at: second(30), attempt: 1, step, why: RESTARTED.to_string() });
            let life = Life { failures: 3, failure, ..life(state) };
            let timeline = timeline(&whole);
            let facts = Facts::of(MAC);
            let (life, now) = (Some(&life), second(31));
            let case =
                Case { timeline: &timeline, facts: &facts, life, rivals: &[], over: false, now };
            diagnose(&case).unwrap()
        };
        let ended = told(State::Assigned, Stage::System);
        assert_eq!(ended.name, "never-reported");
        assert!(ended.todo.contains("{{ report }}/done"), "{ended:?}");
        let held = told(State::Failed, Stage::Answer);
        assert_eq!((&*held.name, &*held.todo), ("held", REPORT));
        let early = told(State::Assigned, Stage::Kernel);
        assert_eq!(early.name, "attempt-failed", "it never came to its answers");
    }

    #[test]
    fn what_the_lifecycle_says_of_a_report_is_what_is_read_here() {
        let Attempt { until, .. } = life(State::Installing).attempt.unwrap();
        let running = life(State::Installing);
        let ticked = lifecycle::step(MAC, Some(&running), lifecycle::LifeEvent::Tick, 3, until);
        let Ok(lifecycle::Change::To(Some(after))) = ticked else { panic!("its time is over") };
        assert_eq!(after.failure.unwrap().why, NO_REPORT);
        let again = lifecycle::Begin {
            profile: "web".into(),
            boot: "c".into(),
            report: "s".into(),
            address: None,
            facts: Facts::of(MAC),
            timeout: std::time::Duration::from_secs(7200),
            attempts: 3,
            restarted: true,
            chosen: false,
        };
        let again = lifecycle::LifeEvent::Begin(Box::new(again));
        let mut running = running;
        running.attempt.as_mut().unwrap().step = Stage::System;
        let began = lifecycle::step(MAC, Some(&running), again, 3, second(600));
        let Ok(lifecycle::Change::To(Some(after))) = began else { panic!("it starts again") };
        assert_eq!(after.failure.unwrap().why, RESTARTED);
    }

    #[test]
    fn a_rival_that_was_heard_is_named() {
        let timeline = timeline(&after(&[OFFERED, OFFERED]));
        let rivals = ["10.0.0.7".to_string()];
        let facts = Facts::of(MAC);
        let now = second(9);
        let case = Case {
            timeline: &timeline,
            facts: &facts,
            life: None,
            rivals: &rivals,
            over: false,
            now,
        };
        let found = diagnose(&case).unwrap();
        assert!(found.sentence.ends_with("faster, 10.0.0.7"), "{found:?}");
        assert!(found.todo.contains("switch the other server off"));
        let over = Case { timeline: &timeline[..2], over: true, rivals: &[], ..case };
        assert_eq!(diagnose(&over).unwrap().name, "never-requested", "nothing more can come");
        assert_eq!(diagnose(&Case { timeline: &[], ..case }), None);
    }
}
