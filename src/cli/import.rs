//! `pilotlight import`: what people have, to a configuration of ours.
//!
//! 1. Each file is told by its content ([`kind`]); a folder is a pxelinux.cfg, or what is in it.
//! 2. DHCP comes before menus, whatever their order on the command line: a menu's file for one
//!    machine finds the machine that a reservation has made.
//! 3. The TOML goes to standard output or a new file; what was left out to standard error.
//! 4. An image is checked, recognised, and said to be what it is.
//! 5. Leases go into the store, if one is named.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use comfy_table::{ColumnConstraint, Width};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use serde_json::json;

use super::ask::{lines, table};
use super::output::{self, COLUMNS};
use super::{ConfigFile, cache};
use crate::app::{self, count};
use crate::config::installers::{Installers, Look};
use crate::config::{Config, Finding, Root};
use crate::dhcp::{self, lease};
use crate::import::disk::Disk;
use crate::import::draft::{Draft, Moved};
use crate::import::image::{self, Unknown};
use crate::import::kind::{self, Kind};
use crate::import::leases::{self, Told};
use crate::import::pxelinux::{self, Roots};
use crate::import::{Files, Left, LeftOut, NoFile, dhcpd, dnsmasq};
use crate::media::sums::{self, Proof};
use crate::media::{self, Library};
use crate::model::event::plain;
use crate::model::{self, Why};

/// A text that is looked at first: sectors 16 to 31 of an image tell what it is.
const SECTORS: (u64, usize) = (16 * 2048, 16 * 2048);
/// Names of a tree that are shown, and characters of each.
const TOP: usize = 16;
const NAME: usize = 80;
/// Columns of a line that was left out.
const LEFT: u16 = 30;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  pilotlight import CentOS-7-x86_64-DVD-2009.iso
      Which system it is, whether it is whole, and the lines that install it.
      With --config FILE it knows the installers of [installers] there, too.

  pilotlight import /etc/dhcp/dhcpd.conf
      Prints the configuration that says the same, and what was left out and why.
  pilotlight import /etc/dnsmasq.conf /srv/tftp/pxelinux.cfg --write pilotlight.toml
      Both become one; a menu's file for one machine joins its reservation.
  pilotlight import /srv/tftp/pxelinux.cfg/default --http-root /var/www/html
      Kernels that are not in the TFTP folder are looked for in that of the web server.
  sudo pilotlight import /etc/dhcp/dhcpd.conf /var/lib/dhcp/dhcpd.leases \\
      --state-dir /var/lib/pilotlight
      Its leases come along, so that each machine keeps its address.

What each file is, is told by its content, whatever it is called. Nothing is
changed but the file of --write, which must be new, and the leases of
--state-dir, for which the server must be stopped. Exit code 0 if it is done,
also where lines were left out; 1 if a file cannot be understood or an image is
of no system that is known: the others are printed or written all the same.")]
pub struct Import {
    /// What is to be imported: configurations, folders of them, leases, images
    #[arg(required = true, value_name = "FILE|FOLDER")]
    what: Vec<PathBuf>,
    /// Write the configuration to this new file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// The folder that was served by TFTP, where it is not that of pxelinux.cfg
    #[arg(long, value_name = "DIR")]
    tftp_root: Option<PathBuf>,
    /// The folder that was served by HTTP
    #[arg(long, value_name = "DIR")]
    http_root: Option<PathBuf>,
    /// Put the leases into the store in this folder, for the subnets of --config, or of what is
    /// imported
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
    /// Of an image that is not known: all that was looked for
    #[arg(long)]
    verbose: bool,
    /// For programs: one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(import: &Import) -> anyhow::Result<()> {
    let disk = Disk::default();
    let mut sources = Vec::new();
    let mut failed = Vec::new();
    for path in &import.what {
        match look(&disk, &tidied(path)) {
            Ok(found) => sources.extend(found),
            Err(why) => failed.push(why),
        }
    }
    if sources.is_empty()
        && let Some(why) = failed.pop()
    {
        for other in failed {
            let _ = writeln!(anstream::stderr(), "{other:#}\n");
        }
        return Err(why);
    }
    sources.sort_by_key(|s| s.kind);
    let library = Library::default();
    let mut draft = Draft::default();
    let own = own(import, &sources)?;
    if let (Some(config), Some(file)) = (&own, &import.file.config)
        && let Some(dir) = config.installers.folder()
    {
        draft.installers = Some((std::path::absolute(dir)?, file.clone()));
    }
    let installers = own.as_ref().map_or(Installers::builtin(), |c| &*c.installers);
    let images = images(&library, installers, &mut draft, &sources)?;
    failed.extend(images.iter().filter_map(|i| i.failed.as_ref()).map(|why| anyhow!("{why}")));
    let mut of: Vec<String> = Vec::new();
    let mut told = Told::default();
    // A bad one is told, and is in nobody's way.
    sources.retain(|source| match add(import, &disk, &mut draft, &mut told, source) {
        Ok(has_lines) => {
            of.extend(has_lines.then(|| source.path.display().to_string()));
            true
        }
        Err(why) => {
            failed.push(why);
            false
        }
    });
    let moved = moved(draft, &of, &library)?;
    let unknown = images.iter().filter(|i| i.unknown.is_some()).count();
    let whole = failed.is_empty() && unknown == 0;
    if let Some(file) = &import.write {
        let empty = whole && moved.toml.is_empty();
        ensure!(!empty, "there is no configuration in it, so nothing is written");
        // Before leases are kept, which would be half of it.
        ensure!(!file.exists(), "{}", is_there(file));
    }
    let written = import.write.as_ref().filter(|_| !moved.toml.is_empty());
    if let Some(file) = written {
        write(file, &moved.toml)?;
    }
    // Only when the file is there, which may have no folder or no room; one without the other is none.
    let kept = keep(import, &moved, &told).inspect_err(|_| {
        if let Some(file) = written {
            let _ = fs::remove_file(file);
        }
    })?;
    let done =
        Done { sources: &sources, images: &images, moved: &moved, told: &told, kept, failed };
    show(import, &done)?;
    if whole {
        return Ok(());
    }
    let mut why: Vec<String> = done.failed.iter().map(pictured).collect();
    if unknown > 0 {
        let more = match moved.toml.is_empty() {
            true => ", so there is nothing to write",
            false => "; the rest is good",
        };
        let of = count(unknown as u64, "image");
        why.push(format!("{of} of no system that is known{more}"));
    }
    if let Some(file) = &import.write {
        let file = file.display();
        why.push(match written {
            None => format!("{file} is not written: there is nothing for it"),
            // Beside the other it would say anew what only one file can say, like [dhcp] mode.
            Some(_) => format!(
                "that is not in {file}: mend it, remove {file}, and import all of them anew"
            ),
        });
    }
    bail!("{}", why.join("\n"))
}

/// What an import came to.
struct Done<'a> {
    sources: &'a [Source],
    images: &'a [Found],
    moved: &'a Moved,
    told: &'a Told,
    kept: Option<Vec<Result<(), lease::NotAdopted>>>,
    /// What could not be imported, and why.
    failed: Vec<anyhow::Error>,
}

/// The configuration that has installers of the user's own, where an image may want them.
fn own(import: &Import, sources: &[Source]) -> anyhow::Result<Option<Config>> {
    if import.file.config.is_none() || sources.iter().all(|s| s.kind != Kind::Image) {
        return Ok(None);
    }
    configuration(import).map(Some)
}

fn configuration(import: &Import) -> anyhow::Result<Config> {
    app::configuration(&app::Options {
        config: import.file.config.clone(),
        ..app::Options::default()
    })
}

/// A set of images, and what was found of it.
#[derive(Default)]
struct Found {
    images: Vec<PathBuf>,
    volume: String,
    /// The names that its tree begins with.
    top: Vec<String>,
    /// What each is known to be whole by.
    proofs: Vec<Proof>,
    /// The profile that boots it.
    profile: Option<String>,
    /// What its installer wants besides.
    note: String,
    /// What is known of it, if none does.
    unknown: Option<Unknown>,
    /// Why it cannot be read.
    failed: Option<String>,
}

/// Checks and recognises the images.
fn images(
    library: &Library,
    installers: &Installers,
    draft: &mut Draft,
    sources: &[Source],
) -> anyhow::Result<Vec<Found>> {
    let all = sources.iter().filter(|s| s.kind == Kind::Image);
    let all: Vec<PathBuf> = all.map(|s| std::path::absolute(&s.path)).collect::<Result<_, _>>()?;
    let found = image::sets(&all).into_iter().map(|images| {
        let failed =
            |why: String| Found { images: images.clone(), failed: Some(why), ..Found::default() };
        one_image(library, installers, draft, &images)
            .unwrap_or_else(|why| failed(format!("{why:#}")))
    });
    Ok(found.collect())
}

/// A path as it is told, without `..`; as the disk has it, for what is before that may be a link.
fn tidied(path: &Path) -> PathBuf {
    match path.components().any(|c| c == std::path::Component::ParentDir) {
        true => path.canonicalize().unwrap_or_else(|_| path.to_path_buf()),
        false => path.to_path_buf(),
    }
}

fn one_image(
    library: &Library,
    installers: &Installers,
    draft: &mut Draft,
    images: &[PathBuf],
) -> anyhow::Result<Found> {
    let proofs = images.iter().map(|i| whole(i)).collect::<anyhow::Result<Vec<_>>>()?;
    let tree = Look::tree(library, &Root::Images(images.to_vec())).map_err(|e| anyhow!(e))?;
    let volume = plain(&tree.volume().unwrap_or_default(), NAME);
    let found = Found { images: images.to_vec(), volume, proofs, ..Found::default() };
    let first = images.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
    Ok(match image::recognise(installers, &*tree, first) {
        Ok(known) => Found {
            note: known.plan(&*tree).map_or(String::new(), |plan| plan.release.note),
            profile: Some(image::add(draft, images, &known, &*tree, &found.volume)),
            ..found
        },
        Err(unknown) => Found { unknown: Some(*unknown), top: top(library, images), ..found },
    })
}

/// The names that the tree of images begins with; folders end with a slash.
fn top(library: &Library, images: &[PathBuf]) -> Vec<String> {
    let Ok(media::Found::Dir(all)) =
        media::resolve(library, &Root::Images(images.to_vec()), Path::new(""))
    else {
        return Vec::new();
    };
    let name = |e: &media::Entry| {
        let name = plain(&e.name.to_string_lossy(), NAME);
        if e.is_dir { format!("{name}/") } else { name }
    };
    let more = all.len().saturating_sub(TOP);
    let mut names: Vec<String> = all.iter().take(TOP).map(name).collect();
    names.extend((more > 0).then(|| format!("and {more} more")));
    names
}

/// By what an image is known to be whole; with a bar, for it may have many gigabytes.
fn whole(image: &Path) -> anyhow::Result<Proof> {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    bar.set_message(image.file_name().unwrap_or_default().to_string_lossy().to_string());
    let checked = sums::check(image, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    checked.map_err(|e| anyhow!("{}: {e}", image.display()))
}

/// A file to import, or a folder of pxelinux.cfg.
struct Source {
    path: PathBuf,
    kind: Kind,
    /// None of a folder.
    text: Option<String>,
}

/// What is at a path.
fn look(disk: &Disk, path: &Path) -> anyhow::Result<Vec<Source>> {
    let name = || path.display();
    let about = fs::metadata(path).map_err(|e| anyhow!("{}: {e}", name()))?;
    if !about.is_dir() {
        return Ok(vec![one(disk, path)?]);
    }
    let inside = path.join("pxelinux.cfg");
    if inside.is_dir() {
        return Ok(vec![Source { path: inside, kind: Kind::Pxelinux, text: None }]);
    }
    let all = disk.list(path).map_err(|e| anyhow!("{}: {e}", name()))?;
    let menus = |p: &PathBuf| p.file_name().is_some_and(pxelinux::is_asked_for);
    if path.file_name().is_some_and(|n| n == "pxelinux.cfg") || all.iter().any(menus) {
        return Ok(vec![Source { path: path.to_path_buf(), kind: Kind::Pxelinux, text: None }]);
    }
    let found: Vec<Source> = all.iter().filter_map(|p| one(disk, p).ok()).collect();
    ensure!(!found.is_empty(), "{}: no file in it is known: {}", name(), kind::LOOKED_FOR);
    Ok(found)
}

fn one(disk: &Disk, path: &Path) -> anyhow::Result<Source> {
    let name = path.display();
    if is_image(path).map_err(|e| anyhow!("{name}: {e}"))? {
        return Ok(Source { path: path.to_path_buf(), kind: Kind::Image, text: None });
    }
    let text = disk.read(path).map_err(|e| match e {
        NoFile::Disk(said) => anyhow!("{said}"),
        NoFile::NoText => anyhow!("{name}: it is not known what it is: {}", kind::LOOKED_FOR),
        e => anyhow!("{name}: {e}"),
    })?;
    let Some(kind) = kind::of(&text) else {
        if let Some(stranger) = kind::stranger(&text) {
            bail!("{name}: {}", stranger.told());
        }
        bail!("{name}: it is not known what it is: {}", kind::LOOKED_FOR);
    };
    Ok(Source { path: path.to_path_buf(), kind, text: Some(text) })
}

fn is_image(path: &Path) -> std::io::Result<bool> {
    // A pipe would be waited for.
    if !fs::metadata(path)?.is_file() {
        return Ok(false);
    }
    let file = File::open(path)?;
    if file.metadata()?.len() <= SECTORS.0 {
        return Ok(false);
    }
    let mut bytes = vec![0; SECTORS.1];
    let read = file.read_at(&mut bytes, SECTORS.0)?;
    Ok(kind::is_image(&bytes[..read]))
}

/// What is wrong with a file, for a person: as a picture where there is one.
fn pictured(why: &anyhow::Error) -> String {
    match why.downcast_ref::<Finding>() {
        Some(finding) => format!("this is not understood:\n\n{}\n", finding.picture(true)),
        None => format!("{why:#}"),
    }
}

/// Puts what a file says into the draft, or into the leases: whether it has lines of the
/// configuration. Of one that is bad nothing stays.
fn add(
    import: &Import,
    disk: &Disk,
    draft: &mut Draft,
    told: &mut Told,
    source: &Source,
) -> anyhow::Result<bool> {
    let (Source { path, .. }, text) = (source, source.text.as_deref());
    let before = matches!(source.kind, Kind::Dhcpd | Kind::Pxelinux).then(|| draft.clone());
    let now = Timestamp::now();
    let done = match (source.kind, text) {
        (Kind::Dhcpd, Some(text)) => {
            dhcpd::import(draft, disk, path, text).map_err(|e| anyhow!(*e))
        }
        (Kind::Dnsmasq, Some(text)) => {
            dnsmasq::import(draft, disk, path, text);
            Ok(())
        }
        (Kind::Pxelinux, text) => {
            let roots = Roots { tftp: import.tftp_root.clone(), http: import.http_root.clone() };
            pxelinux::import(draft, disk, &roots, path, text)
                .map_err(|e| anyhow!("{}: {e}", path.display()))
        }
        (Kind::DhcpdLeases, Some(text)) => {
            let found = leases::of_dhcpd(path, text, now).map_err(|e| anyhow!(*e))?;
            told.extend(found);
            return Ok(false);
        }
        (Kind::DnsmasqLeases, Some(text)) => {
            told.extend(leases::of_dnsmasq(path, text, now));
            return Ok(false);
        }
        (Kind::Image, _) => return Ok(draft.has_media()),
        _ => return Ok(false),
    };
    if let (Err(_), Some(before)) = (&done, before) {
        *draft = before;
    }
    done.map(|()| true)
}

fn moved(draft: Draft, of: &[String], library: &Library) -> anyhow::Result<Moved> {
    if of.is_empty() {
        return Ok(Moved { toml: String::new(), config: Config::default(), left: Left::default() });
    }
    draft.finish(&of.join(", "), library).map_err(|errors| {
        anyhow!("what came of it is no configuration, even without all that was refused:\n{errors}")
    })
}

/// What became of each lease; `None` where no store is named.
fn keep(
    import: &Import,
    moved: &Moved,
    told: &Told,
) -> anyhow::Result<Option<Vec<Result<(), lease::NotAdopted>>>> {
    let Some(dir) = &import.state_dir else { return Ok(None) };
    let config = match &import.file.config {
        Some(_) => configuration(import)?,
        None => moved.config.clone(),
    };
    ensure!(
        !config.dhcp.subnets.is_empty(),
        "leases are kept for the addresses of a declared [[subnet]], and there is none: name the \
         configuration with --config, or import the dhcpd.conf or dnsmasq.conf along with them"
    );
    let config = Config { state_dir: dir.clone(), ..config };
    let Some(store) = cache::store(&config)? else {
        bail!(
            "{}: the server is running, and has the leases: stop it first, import, and start it \
             again",
            dir.display()
        );
    };
    let all = told.leases.iter().map(|l| lease::Lease {
        address: l.address,
        mac: l.mac,
        state: lease::State::Bound,
        starts: l.starts.unwrap_or_else(Timestamp::now),
        ends: l.ends.unwrap_or(Timestamp::MAX),
        hostname: l.hostname.clone(),
    });
    Ok(Some(dhcp::serve::adopt(&*store, &config, all)?))
}

fn write(file: &Path, toml: &str) -> anyhow::Result<()> {
    let name = file.display();
    let new = File::options().write(true).create_new(true).open(file);
    let mut new = new.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => anyhow!("{}", is_there(file)),
        _ => anyhow!("{name}: {e}"),
    })?;
    new.write_all(toml.as_bytes()).with_context(|| {
        // Half of it is of no use to anybody.
        let _ = fs::remove_file(file);
        format!("{name}")
    })
}

fn is_there(file: &Path) -> String {
    let name = file.display();
    format!("{name} is there already, and nothing is written over: name a new file")
}

fn show(import: &Import, done: &Done<'_>) -> anyhow::Result<()> {
    if import.json {
        return Ok(output::print(&as_json(done))?);
    }
    let Done { sources, images, moved, told, kept, .. } = done;
    let mut said = String::new();
    for s in sources.iter().filter(|s| s.kind != Kind::Image) {
        said += &format!("{}: {}\n", s.path.display(), s.kind.title());
    }
    for found in images.iter().filter(|i| i.failed.is_none()) {
        said += &about(found, &moved.config, import.verbose);
    }
    said += &left_out(&moved.left);
    let servers = [Kind::Dhcpd, Kind::Dnsmasq, Kind::Pxelinux];
    if sources.iter().any(|s| servers.contains(&s.kind)) {
        said += "\nBefore it is served on this host, stop dhcpd, dnsmasq, the TFTP server and the\n\
                 web server: it takes their ports.\n";
    }
    said += &of_leases(told, kept.as_deref());
    if let Some(file) = import.write.as_ref().filter(|_| !moved.toml.is_empty()) {
        said += &format!("\nWritten: {0}. Next: pilotlight check --config {0}\n", file.display());
    }
    let toml = if import.write.is_none() { moved.toml.as_str() } else { "" };
    if !toml.is_empty() {
        output::print(toml)?;
    }
    // On a terminal both are read one below the other.
    let apart = std::io::stdout().is_terminal() && !toml.is_empty();
    let _ = write!(anstream::stderr(), "{}{said}", if apart { "\n" } else { "" });
    Ok(())
}

fn place(source: &model::profile::Source) -> String {
    use model::profile::Source;
    match source {
        Source::Ours { folder: home, path } | Source::Mirror { mirror: home, path } => {
            format!("{home}/{path}")
        }
        Source::Url(url) => url.clone(),
        Source::Answer(name) => format!("the answer {name}"),
    }
}

/// What an image is, and why.
fn about(found: &Found, config: &Config, verbose: bool) -> String {
    let names: Vec<String> = found.images.iter().map(|i| i.display().to_string()).collect();
    let profile = found.profile.as_ref().and_then(|name| config.profile(name));
    let release = profile.and_then(|p| p.release.as_ref());
    let is = match (release, &found.profile) {
        (Some(release), _) => format!("{} ({})", release.title, release.arch),
        (None, Some(profile)) => format!("{profile}, which wants a file of yours"),
        (None, None) => "an image of a system that is not known".to_string(),
    };
    let mut said = output::wrap(&format!("{}: ", names.join(", ")), &is);
    let mut field = |name: &str, text: &str| said += &output::wrap(&format!("  {name:<11}"), text);
    field("volume", &found.volume);
    for proof in &found.proofs {
        field("checked", &proof.to_string());
    }
    if let (Some(profile), Some(release)) = (profile, release) {
        let told: Vec<String> = release
            .captures
            .iter()
            .filter(|(_, v)| !v.is_empty())
            .map(|(k, v)| format!("{k} {v}"))
            .collect();
        field("installer", &release.installer);
        field("told by", &told.join(", "));
        for (what, boot) in [("boots", Some(&profile.boot)), ("by UEFI", profile.uefi.as_ref())] {
            let Some(boot) = boot else { continue };
            let said = match boot.kernel() {
                Some(_) => boot.sources().map(place).collect::<Vec<_>>().join(", "),
                None => "a script of iPXE".to_string(),
            };
            field(what, &said);
        }
        if release.bios_only {
            field("by UEFI", "cannot boot");
        }
        if let Some(memory) = profile.memory {
            field("memory", &format!("{memory} MiB at the least"));
        }
    }
    if !found.note.is_empty() {
        field("note", &found.note);
    }
    if let Some(unknown) = &found.unknown {
        field("has", &found.top.join(", "));
        said += &not_known(unknown, &found.images, verbose);
    }
    said
}

/// What helps with an image that is of no system that is known.
fn not_known(unknown: &Unknown, images: &[PathBuf], verbose: bool) -> String {
    let mut said = String::new();
    let mut field = |name: &str, text: &str| said += &output::wrap(&format!("  {name:<11}"), text);
    if let Some((number, is)) = &unknown.disc {
        let first = "name the first before it, pilotlight import DISC1.iso";
        let names: Vec<String> = images.iter().map(|i| i.display().to_string()).collect();
        let is = format!(
            "it is disc {number} of {}, and is no system without the first: {first} {}",
            plain(is, NAME),
            names.join(" ")
        );
        field("disc", &is);
        return said;
    }
    if let Some(near) = &unknown.nearest {
        let agree = count(near.agrees as u64, "sign");
        let text = format!("{} ({agree}), but {}", near.installer, near.fails.join(", and "));
        field("nearest", &text);
    }
    if verbose {
        said += "\nLooked for, and not found:\n\n";
        let mut table = table(&["system", "by"], 1);
        table.set_width(COLUMNS as u16);
        for (name, by) in &unknown.looked_for {
            table.add_row([name, by]);
        }
        said += &lines(&table);
    }
    said += "\nIts files can be served, and its kernel booted, all the same:\n\n";
    for line in unknown.skeleton(images).lines() {
        said += &format!("    {line}\n").replace("    \n", "\n");
    }
    if !verbose {
        said += "\n--verbose shows all that was looked for; docs/installers.md how a system is added.\n";
    }
    said
}

fn as_json(done: &Done<'_>) -> String {
    let Done { sources, images, moved, told, failed, .. } = done;
    let kept = done.kept.as_deref();
    let failed: Vec<String> = failed.iter().map(|why| format!("{why:#}")).collect();
    let files: Vec<_> = sources.iter().map(|s| json!({ "file": s.path, "kind": s.kind })).collect();
    let gone = |at: &crate::import::Here, name: &str, why: &str| {
        let (file, line, text) = at.shown();
        json!({ "file": file, "line": line, "text": text, "reason": name, "why": why })
    };
    let mut lost: Vec<_> =
        told.gone.iter().map(|(at, why)| gone(at, why.name(), &why.to_string())).collect();
    for (lease, became) in told.leases.iter().zip(kept.unwrap_or_default()) {
        if let Err(why) = became {
            lost.push(gone(&lease.at, why.name(), &why.to_string()));
        }
    }
    let images: Vec<_> = images
        .iter()
        .map(|i| {
            let proofs: Vec<String> = i.proofs.iter().map(ToString::to_string).collect();
            json!({
                "images": i.images,
                "volume": i.volume,
                "whole": proofs,
                "profile": i.profile,
                "note": i.note,
                "failed": i.failed,
                "top": i.top,
                "disc": i.unknown.as_ref().and_then(|u| u.disc.as_ref()).map(|(n, _)| n),
                "nearest": i.unknown.as_ref().and_then(|u| u.nearest.as_ref()),
                "looked_for": i.unknown.as_ref().map_or(&[][..], |u| &u.looked_for),
            })
        })
        .collect();
    json!({
        "files": files,
        "images": images,
        "failed": failed,
        "toml": moved.toml,
        "left_out": moved.left.lines,
        "more": moved.left.more,
        "leases": {
            "found": told.leases.len(),
            "kept": kept.map(|k| k.iter().filter(|k| k.is_ok()).count()),
            "left_out": lost,
        },
    })
    .to_string()
}

/// A table of lines with the reason of each.
fn reasons<'a>(rows: impl Iterator<Item = (usize, usize, &'a str, String)>) -> String {
    let mut table = table(&["line", "", "why not"], 1);
    table.set_width(COLUMNS as u16);
    for (line, last, text, why) in rows {
        let at = if last > line { format!("{line}-{last}") } else { line.to_string() };
        table.add_row([&at, text, &why]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_constraint(ColumnConstraint::UpperBoundary(Width::Fixed(LEFT)));
    }
    lines(&table)
}

fn left_out(left: &Left) -> String {
    let mut said = String::new();
    let mut rest = &left.lines[..];
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|l| l.file == first.file).count();
        let (these, others) = rest.split_at(same);
        said += &format!("\nLeft out of {}:\n\n", first.file);
        said += &reasons(these.iter().map(row));
        rest = others;
    }
    if left.more > 0 {
        said += &format!("\nAnd {} more.\n", count(left.more as u64, "line"));
    }
    said
}

fn row(l: &LeftOut) -> (usize, usize, &str, String) {
    (l.line, l.last, &l.text, l.why.to_string())
}

fn of_leases(told: &Told, kept: Option<&[Result<(), lease::NotAdopted>]>) -> String {
    if told.leases.is_empty() && told.gone.is_empty() {
        return String::new();
    }
    let found = count(told.leases.len() as u64, "lease");
    let mut said = match kept {
        None => format!("\n{found} in force; --state-dir DIR puts them into our store.\n"),
        Some(kept) => {
            let n = kept.iter().filter(|k| k.is_ok()).count();
            format!("\n{found} in force, of which {n} came along.\n")
        }
    };
    let mut lost: Vec<_> = told.gone.iter().map(|(at, why)| (at, why.to_string())).collect();
    for (lease, became) in told.leases.iter().zip(kept.unwrap_or_default()) {
        if let Err(why) = became {
            lost.push((&lease.at, why.to_string()));
        }
    }
    if !lost.is_empty() {
        let rows = lost.iter().map(|(at, why)| {
            let (_, line, text) = at.shown();
            (line, line, text, why.clone())
        });
        said += &format!("\n{}", reasons(rows));
    }
    said
}
