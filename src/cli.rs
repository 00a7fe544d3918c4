//! The command line: words in, words and an exit code out. The work is in the modules below.
//!
//! Exit codes: 0 done; 1 it could not be done, and a sentence says why; 2 the words were wrong.

mod ask;
mod explain;
mod output;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use sha_crypt::{PasswordHasher, ShaCrypt};

use crate::app;
use crate::model::Mac;

const EXAMPLES: &str = "\
Examples:
  sudo pilotlight serve --interface eth1
      Proxy mode: the site's DHCP server keeps giving the addresses, machines get a menu.
  sudo pilotlight serve --interface eth1 --config pilotlight.toml
      What the file says; see `pilotlight check` for whether it says it well.
  pilotlight check --config pilotlight.toml
  pilotlight explain 52:54:00:12:34:56 --arch uefi-x64 --config pilotlight.toml
      What this machine would be sent, step by step, and why.
  pilotlight timeline
      Who booted, and how far they got.";

#[derive(Parser)]
#[command(name = "pilotlight", version, about = "A network boot server in one binary", after_help = EXAMPLES)]
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
    /// Show who has which address
    Leases(Look),
    /// Show the newest boot of each machine, or of one, step by step
    Timeline(Timeline),
    /// Make the crypt(3) hash of a password, for answer files
    HashPassword(HashPassword),
    /// Print the completions of a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
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
  sudo pilotlight serve --interface eth1
  sudo pilotlight serve --interface eth1 --tls
  sudo pilotlight serve --interface eth1 --config /etc/pilotlight/pilotlight.toml")]
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
    /// Log lines as JSON
    #[arg(long)]
    log_json: bool,
    /// More in the log
    #[arg(long, short)]
    verbose: bool,
}

#[derive(clap::Args)]
struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Look {
    /// The admin door of the server that runs
    #[arg(long, default_value = "127.0.0.1:8067", value_name = "ADDRESS:PORT")]
    server: String,
    /// For programs: JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Timeline {
    /// One machine; without it all of them
    mac: Option<Mac>,
    #[command(flatten)]
    look: Look,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight hash-password            asks twice, shows nothing
  echo secret | pilotlight hash-password --stdin")]
struct HashPassword {
    /// Read one line from standard input
    #[arg(long)]
    stdin: bool,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(serve) => run(serve),
        Command::Check(check) => return check_all(&check),
        Command::Explain(explain) => explain::run(&explain),
        Command::Leases(look) => ask::leases(&look.server, look.json),
        Command::Timeline(t) => ask::timeline(&t.look.server, t.mac, t.look.json),
        Command::HashPassword(hash) => hash_password(&hash),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "pilotlight",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()).map_err(Into::into)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) if is_closed_pipe(&why) => ExitCode::SUCCESS,
        Err(why) => {
            anstream::eprintln!("pilotlight: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// `pilotlight man | head` has read enough: no failure of ours.
fn is_closed_pipe(why: &anyhow::Error) -> bool {
    why.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(serve: Serve) -> anyhow::Result<()> {
    output::log(serve.log_json, serve.verbose);
    app::run(app::Options {
        config: serve.file.config,
        interfaces: serve.interface,
        tls: serve.tls,
        state_dir: serve.state_dir,
    })
}

fn check_all(check: &Check) -> ExitCode {
    let (notes, errors) = app::check(check.file.config.as_deref());
    output::findings(&notes, &errors, check.json);
    match errors.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn hash_password(hash: &HashPassword) -> anyhow::Result<()> {
    let password = match hash.stdin {
        true => {
            let mut line = String::new();
            std::io::stdin().take(1024).read_to_string(&mut line)?;
            line.lines().next().unwrap_or_default().to_string()
        }
        false => {
            let first = rpassword::prompt_password("Password: ")?;
            anyhow::ensure!(
                first == rpassword::prompt_password("Once more: ")?,
                "the two are not the same; nothing was made"
            );
            first
        }
    };
    anyhow::ensure!(!password.is_empty(), "an empty password is no password");
    // 12 bytes are 16 characters of salt, the most that crypt(3) reads; a longer one makes a hash
    // that never logs in.
    let mut salt = [0; 12];
    getrandom::fill(&mut salt)?;
    let made = ShaCrypt::default()
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|e| anyhow::anyhow!("no hash was made: {e}"))?;
    anstream::println!("{made}");
    Ok(())
}
