//! Sends the packet, runs the command.

use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Action, Said, Target, Trouble, Way, wire};
use crate::model::Mac;
use crate::model::event::plain;

/// A packet that wakes nobody is not repeated by anyone, and a link that sleeps may lose the first.
const PACKETS: usize = 3;
/// How long a command may take.
const TIME: Duration = Duration::from_secs(60);
/// Of what a command says; the rest is read and forgotten.
const OUTPUT: usize = 2000;

/// One network that cannot be reached does not keep the packet from the others.
pub(super) fn wake(mac: Mac, ways: &[Way]) -> Result<Said, Trouble> {
    let packet = wire::magic(mac);
    let send = |way: &Way| {
        let socket = UdpSocket::bind((way.from, 0))?;
        socket.set_broadcast(true)?;
        (0..PACKETS).try_for_each(|_| socket.send_to(&packet, way.to).map(drop))
    };
    let (mut sent, mut trouble) = (Vec::new(), Trouble::NoNetwork);
    for way in ways {
        match send(way) {
            Ok(()) if sent.contains(&way.interface) => {}
            Ok(()) => sent.push(way.interface.clone()),
            Err(source) => {
                trouble = Trouble::NotSent { interface: way.interface.clone(), source };
            }
        }
    }
    match sent.is_empty() {
        true => Err(trouble),
        false => Ok(Said::Woken(sent.join(", "))),
    }
}

/// Runs `words` with the action behind them: no shell, in a process group of its own, which is
/// killed when its time is over. It has the server's environment, where a unit file may have put
/// the BMC's password, and PILOTLIGHT_MAC, _NAME and _ACTION.
pub(super) async fn command(
    words: &[String],
    target: Target<'_>,
    action: Action,
) -> Result<Said, Trouble> {
    within(TIME, words, target, action).await
}

async fn within(
    time: Duration,
    words: &[String],
    target: Target<'_>,
    action: Action,
) -> Result<Said, Trouble> {
    let Some((program, args)) = words.split_first() else {
        let source = std::io::ErrorKind::InvalidInput.into();
        return Err(Trouble::NotRun { program: "power.command".into(), source });
    };
    let not_run = |source| Trouble::NotRun { program: program.clone(), source };
    let (write, mut read) = pipe::pipe().map_err(not_run)?;
    let write = write.into_blocking_fd().map_err(not_run)?;
    let mut order = Command::new(program);
    order.args(args).arg(action.word()).kill_on_drop(true).process_group(0);
    order.env("PILOTLIGHT_MAC", target.mac.to_string());
    order.env("PILOTLIGHT_NAME", target.name).env("PILOTLIGHT_ACTION", action.word());
    order.stdin(Stdio::null()).stderr(write.try_clone().map_err(not_run)?).stdout(write);
    let mut child = order.spawn().map_err(not_run)?;
    // Its ends of the pipe are to be the only ones.
    drop(order);
    let mut heard = Vec::new();
    let ended = timeout(time, listen(&mut child, &mut read, &mut heard)).await;
    let output = plain(String::from_utf8_lossy(&heard).trim(), OUTPUT);
    let program = program.clone();
    match ended {
        Ok(Ok(status)) if status.success() => Ok(Said::Ran { program, action }),
        Ok(Ok(status)) => Err(Trouble::Failed { program, action, code: code(status), output }),
        Ok(Err(source)) => Err(Trouble::NotRun { program, source }),
        Err(_) => {
            if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()) {
                // What has ended just now needs no end.
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            let _ = child.wait().await;
            Err(Trouble::TooLong { program, action, seconds: time.as_secs(), output })
        }
    }
}

/// Until the program ends: what it left running may hold the pipe for ever.
async fn listen(
    child: &mut Child,
    read: &mut pipe::Receiver,
    heard: &mut Vec<u8>,
) -> std::io::Result<ExitStatus> {
    let mut keep = |bytes: &[u8]| {
        let room = OUTPUT.saturating_sub(heard.len());
        heard.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    let mut buffer = [0; 4096];
    let mut open = true;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            ready = read.readable(), if open => {
                ready?;
                match read.try_read(&mut buffer) {
                    Ok(0) => open = false,
                    Ok(n) => keep(&buffer[..n]),
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(e),
                }
            }
        }
    };
    // What it said last; another that writes on is not waited for.
    for _ in 0..OUTPUT {
        match read.try_read(&mut buffer) {
            Ok(n) if n > 0 => keep(&buffer[..n]),
            _ => break,
        }
    }
    Ok(status)
}

fn code(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Power;
    use std::time::Instant;

    /// Its state in proc(5); none once it is gone.
    fn state(pid: &str) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    #[tokio::test]
    async fn what_takes_too_long_is_killed_with_all_that_it_started() {
        let words = ["sh", "-c", "sleep 300 & echo $!; wait"].map(String::from);
        let target = Target { mac: Mac([2; 6]), name: "web1", power: &Power::WakeOnLan };
        let ended = within(Duration::from_secs(2), &words, target, Action::Off).await;
        let Err(Trouble::TooLong { seconds: 2, output, .. }) = ended else { panic!("{ended:?}") };
        assert!(output.parse::<u32>().is_ok(), "{output}");
        let deadline = Instant::now() + Duration::from_secs(20);
        // Who nobody waits for stays a zombie.
        while state(&output).is_some_and(|s| s != 'Z') {
            assert!(Instant::now() < deadline, "{output} runs on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
