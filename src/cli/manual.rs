//! The manual page: the command's own, with a section for each of its commands.

use std::io::{self, Write};

use anyhow::bail;
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{Cli, output};

/// Prints the page of one command, or of all.
///
/// # Errors
/// There is no such command.
pub fn print(name: Option<&str>) -> anyhow::Result<()> {
    let mut all = Cli::command();
    // Fills in what clap knows only then: usage lines with the whole command.
    all.build();
    let mut page = Vec::new();
    match name {
        None => whole(&all, &mut page)?,
        Some(name) => match commands(&all).into_iter().find(|(n, _)| n == name) {
            Some((name, command)) => one(&all, &name, command, &mut page)?,
            None => {
                let names: Vec<String> = commands(&all).into_iter().map(|(n, _)| n).collect();
                bail!("there is no command {name:?}; there are {}", names.join(", "));
            }
        },
    }
    // What stands below the options is examples; and a page without ragged gaps.
    let page = String::from_utf8(page)?
        .replace(".SH EXTRA", ".SH EXAMPLES")
        .replace(".SS EXTRA", ".SS EXAMPLES")
        .replacen(".SH NAME", ".ad l\n.nh\n.SH NAME", 1);
    Ok(output::print(&page)?)
}

/// Each with the name of its page: `cache`, `cache-list`.
fn commands(all: &Command) -> Vec<(String, &Command)> {
    let own = |c: &&Command| c.get_name() != "help";
    let mut found = Vec::new();
    for command in all.get_subcommands().filter(own) {
        let name = command.get_name();
        found.push((name.to_string(), command));
        let parts = command.get_subcommands().filter(own);
        found.extend(parts.map(|part| (format!("{name}-{}", part.get_name()), part)));
    }
    found
}

fn whole(all: &Command, page: &mut dyn Write) -> io::Result<()> {
    let man = Man::new(all.clone()).manual("pilotlight");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    for (_, command) in commands(all) {
        let title = command.get_bin_name().unwrap_or(command.get_name()).to_uppercase();
        writeln!(page, ".SH \"{title}\"")?;
        let mut text = Vec::new();
        let man = Man::new(command.clone());
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        man.render_extra_section(&mut text)?;
        // Sections of their own page are parts of this one.
        page.write_all(String::from_utf8_lossy(&text).replace(".SH ", ".SS ").as_bytes())?;
    }
    man.render_extra_section(page)?;
    page.write_all(FILES.as_bytes())?;
    man.render_version_section(page)
}

const FILES: &str = "\
.SH FILES
.TP
/etc/pilotlight/pilotlight.toml, /etc/pilotlight/pilotlight.d/*.toml
The configuration that the service reads; on the command line \\-\\-config names one.
.TP
/var/lib/pilotlight
Leases, the certificate authority with its keys, and in cache what is kept of mirrors.
";

fn one(all: &Command, name: &str, command: &Command, page: &mut dyn Write) -> io::Result<()> {
    let name = format!("{}-{name}", all.get_name());
    Man::new(command.clone().name(name.clone()).display_name(name))
        .manual("pilotlight")
        .render(page)
}
