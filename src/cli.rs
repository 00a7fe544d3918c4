//! The command line: words in, words and an exit code out. The work is in the modules below.
//!
//! Exit codes: 0 done; 1 it could not be done, and a sentence says why; 2 the words were wrong, or
//! `serve` was not told an interface.

mod ask;
mod cache;
mod catalog;
mod door;
mod events;
mod explain;
mod hash;
mod import;
mod installers;
mod machine;
mod manual;
mod output;
mod rehearse;
mod replay;
mod status;
mod token;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{CommandFactory, Parser, Subcommand};

use crate::app;

const EXAMPLES: &str = "\
Examples:
  sudo pilotlight serve --interface eth1
      Proxy mode: the site's DHCP server keeps giving the addresses, machines get a menu.
  sudo pilotlight serve --interface eth1 --config pilotlight.toml
      What the file says; see `pilotlight check` for whether it says it well.
  pilotlight check --config pilotlight.toml
  pilotlight explain 52:54:00:12:34:56 --arch uefi-x64 --config pilotlight.toml
      What this machine would be sent, step by step, and why.
  pilotlight catalog
      What can be booted straight from public mirrors, and the lines that do.
  pilotlight import /etc/dnsmasq.conf /srv/tftp/pxelinux.cfg
      What you have, as a configuration of ours.
  pilotlight machine list
      The machines, their states, and how far those are that install.
  pilotlight timeline
      Who booted, and how far they got.

Exit codes: 0 done; 1 it could not be done, and a sentence on standard error says
why; 2 the words were wrong.";

/// Where `packaging/` puts the configuration; it is read only where `--config` says so.
const INSTALLED: &str = "/etc/pilotlight/pilotlight.toml";
/// What people call it, in the folder that they are in; the same goes for it.
const BESIDE: &str = "pilotlight.toml";

/// With the loaders that are built in.
static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    let loaders = match (crate::ipxe::VERSION, crate::ipxe::embedded()) {
        (_, []) => "none built in".to_string(),
        ("", all) => format!("{} of an unknown version", all.len()),
        (version, all) => {
            let names: Vec<&str> = all.iter().map(|e| e.name).collect();
            let version = version.split_whitespace().next().unwrap_or(version);
            format!("{version} ({})", names.join(", "))
        }
    };
    let text = output::wrap("iPXE loaders: ", &loaders);
    format!("{}\n{}", env!("CARGO_PKG_VERSION"), text.trim_end())
});

#[derive(Parser)]
#[command(
    name = "pilotlight",
    version,
    long_version = LONG_VERSION.as_str(),
    about = "A network boot server in one binary",
    after_help = EXAMPLES,
    max_term_width = output::COLUMNS,
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve machines on an interface
    Serve(Serve),
    /// Read the whole configuration and everything it names, and print what is wrong with it
    Check(Check),
    /// Tell what a machine would be sent at each step of its boot, and why
    Explain(explain::Explain),
    /// Show what can be booted straight from public mirrors
    Catalog(catalog::Catalog),
    /// Show the systems that are known as data, and copy one to change it
    Installers(installers::Installers),
    /// Tell what an image is, and turn dhcpd, dnsmasq or pxelinux into our configuration
    Import(import::Import),
    /// Show how the server is, at a glance
    Status(status::Status),
    /// Show machines, assign and reinstall them, switch them on and off
    Machine(machine::Machine),
    /// Tell where a machine's boot stopped, and what that is likely due to
    Diagnose(machine::Diagnose),
    /// Show what happens, as it happens
    Events(events::Events),
    /// Show who has which address
    Leases(Look),
    /// Show the newest boot of each machine, or of one, step by step
    Timeline(Timeline),
    /// Play a captured boot back: what we would have said, and where it stopped
    Replay(replay::Replay),
    /// Pretend to be many machines that boot from a running server, and show how they fared
    Rehearse(rehearse::Rehearse),
    /// Show, check, pin, fill and empty what is kept of public mirrors
    Cache(cache::Cache),
    /// Make, list and revoke the tokens of the admin door
    Token(token::Token),
    /// Make the crypt(3) hash of a password, for answer files
    HashPassword(hash::HashPassword),
    /// Print the completions of a shell
    #[command(after_help = "\
Examples:
  pilotlight completions bash | sudo tee /etc/bash_completion.d/pilotlight
  pilotlight completions zsh >~/.zfunc/_pilotlight
  pilotlight completions fish >~/.config/fish/completions/pilotlight.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, of all commands or of one
    #[command(after_help = "\
Examples:
  pilotlight man | man -l -
  pilotlight man serve | man -l -")]
    Man {
        /// One command; without it all of them on one page
        command: Option<String>,
    },
}

#[derive(clap::Args, Clone)]
struct ConfigFile {
    /// The configuration; beside it, `pilotlight.d/*.toml` is read too
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight serve
      Lists the interfaces of this machine, and serves nothing: exit code 2.
  sudo pilotlight serve --interface eth1
  sudo pilotlight serve --interface eth1 --tls
  sudo pilotlight serve --interface eth1 --config pilotlight.toml

A change of the configuration takes effect by itself, or by SIGHUP. Ends on
SIGTERM and SIGINT (Ctrl-C) with exit code 0, and with 1 if it cannot start or
an interface goes away. RUST_LOG=debug shows what the libraries say, too.")]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// The interface to serve; may be given several times. Nothing is served on any other
    #[arg(long, short, value_name = "NAME")]
    interface: Vec<String>,
    /// Scripts, kernels and answers by HTTPS, as [tls] enabled = true
    #[arg(long)]
    tls: bool,
    /// Where leases and keys are kept [default: /var/lib/pilotlight]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Log one JSON object a line, with the fields mac and stage
    #[arg(long)]
    log_json: bool,
    /// More in the log
    #[arg(long, short)]
    verbose: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight check --config pilotlight.toml
  pilotlight check --config pilotlight.toml --json | jq -r '.errors[].message'

Reads every file that the configuration names, renders every template for every
machine, and changes nothing. Exit code 0 if it is good, 1 if anything is wrong;
notes are nothing wrong.")]
struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight leases
  pilotlight leases --json | jq -r '.[].address'
  pilotlight leases --server 127.0.0.1:8068")]
struct Look {
    #[command(flatten)]
    server: door::Server,
    /// For programs: JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight timeline
  pilotlight timeline web1
  pilotlight timeline 52:54:00:12:34:56
  pilotlight timeline --json | jq '.[] | {mac, stage: .timeline[-1].stage}'

Times are seconds since the first step of that boot.")]
struct Timeline {
    /// One machine, by name or MAC; without it all of them
    #[arg(value_parser = door::who)]
    machine: Option<String>,
    #[command(flatten)]
    look: Look,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(serve) => run(serve),
        Command::Check(check) => match check_all(&check) {
            Ok(code) => return code,
            Err(why) => Err(why),
        },
        Command::Explain(explain) => explain::run(&explain),
        Command::Catalog(catalog) => catalog::run(&catalog),
        Command::Installers(installers) => installers::run(&installers),
        Command::Import(import) => import::run(&import),
        Command::Status(status) => status::run(&status),
        Command::Machine(machine) => machine::run(&machine),
        Command::Diagnose(diagnose) => machine::diagnose(&diagnose),
        Command::Events(events) => events::run(&events),
        Command::Token(token) => token::run(&token),
        Command::Leases(look) => ask::leases(&look.server, look.json),
        Command::Timeline(t) => ask::timeline(&t.look.server, t.machine.as_deref(), t.look.json),
        Command::Replay(replay) => replay::run(&replay),
        Command::Rehearse(rehearse) => match rehearse::run(&rehearse) {
            Ok(code) => return code,
            Err(why) => Err(why),
        },
        Command::Cache(cache) => match cache::run(&cache) {
            Ok(code) => return code,
            Err(why) => Err(why),
        },
        Command::HashPassword(hash) => hash::run(&hash),
        Command::Completions { shell } => completions(shell),
        Command::Man { command } => manual::print(command.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) if is_closed_pipe(&why) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain(&format!("{why:#}"));
            match why.is::<app::NoInterface>() {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// `pilotlight man | head` has read enough: no failure of ours.
fn is_closed_pipe(why: &anyhow::Error) -> bool {
    why.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// A configuration that lies here, or where the package puts it, is read only if it is named; whoever
/// forgets that would look for the mistake elsewhere.
fn remind(config: Option<&Path>) {
    if let Some(words) = forgotten(config, &[Path::new(BESIDE), Path::new(INSTALLED)]) {
        output::complain(&words);
    }
}

fn forgotten(config: Option<&Path>, usual: &[&Path]) -> Option<String> {
    let there = usual.iter().find(|p| config.is_none() && p.is_file())?.display();
    Some(format!("this is the default configuration; --config {there} reads the one that is there"))
}

fn run(serve: Serve) -> anyhow::Result<()> {
    remind(serve.file.config.as_deref());
    let _log = output::log(serve.log_json, serve.verbose);
    app::run(app::Options {
        config: serve.file.config,
        interfaces: serve.interface,
        tls: serve.tls,
        state_dir: serve.state_dir,
        ..app::Options::default()
    })
}

fn check_all(check: &Check) -> anyhow::Result<ExitCode> {
    remind(check.file.config.as_deref());
    let checked = app::check(check.file.config.as_deref());
    output::print(&output::findings(&checked, check.json)).or_else(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(e),
    })?;
    Ok(match checked.errors.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    // By way of memory: clap_complete panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pilotlight", &mut text);
    Ok(output::print(&String::from_utf8(text)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_finds_nothing_wrong() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_installed_configuration_is_not_forgotten_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        let (beside, installed) =
            (dir.path().join("beside.toml"), dir.path().join("installed.toml"));
        let usual = [&*beside, &*installed];
        assert_eq!(forgotten(None, &usual), None);
        for there in [&installed, &beside] {
            std::fs::write(there, "").unwrap();
            let said = forgotten(None, &usual).unwrap();
            assert!(said.contains(&format!("--config {}", there.display())), "{said}");
        }
        assert_eq!(forgotten(Some(&installed), &usual), None);
    }
}
