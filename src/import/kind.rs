//! What a file is, by what is in it: lines that only one kind of them has.

/// What can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Dhcpd,
    Dnsmasq,
    Pxelinux,
    DhcpdLeases,
    DnsmasqLeases,
    Image,
}

impl Kind {
    pub fn title(self) -> &'static str {
        match self {
            Kind::Dhcpd => "a dhcpd.conf",
            Kind::Dnsmasq => "a dnsmasq.conf",
            Kind::Pxelinux => "a menu of pxelinux",
            Kind::DhcpdLeases => "leases of dhcpd",
            Kind::DnsmasqLeases => "leases of dnsmasq",
            Kind::Image => "an image",
        }
    }
}

/// What was looked for, where nothing was found.
pub const LOOKED_FOR: &str = "it has no statements of dhcpd (subnet … netmask … { }), no lines of \
    dnsmasq (dhcp-range=…), no entries of pxelinux (LABEL, KERNEL), no leases of either, and it is \
    no image (ISO 9660 or UDF)";

/// Lines that are looked at.
const LINES: usize = 20_000;

/// What is known and is not imported, and what to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// What it is called, and the name that it usually has.
    Answer(&'static str, &'static str),
    Ipxe,
    Ours,
}

impl Stranger {
    /// The sentence behind the file's name.
    pub fn told(self) -> String {
        match self {
            Stranger::Answer(what, name) => {
                // Only what has a shell can fetch by it.
                let report = match name {
                    "autounattend.xml" | "config.ign" => "",
                    _ => {
                        " As its last step, add `curl {{ report }}/done`, which tells that the \
                          machine is installed."
                    }
                };
                format!(
                    "it is {what}, the answers of an installer, and is used as it is: name it in \
                     the [[profile]] that boots the installer, answers = {{ \"{name}\" = \"FILE\" }}, \
                     and {{{{ answers['{name}'] }}}} in its `args` in the place of its URL.{report}"
                )
            }
            Stranger::Ipxe => {
                "it is a script of iPXE, and is not read: name the kernel, initrd and \
                               args of each of its choices in a [[profile]]; the menu is made of \
                               those"
                    .to_string()
            }
            Stranger::Ours => "it is a configuration of pilotlight already: `pilotlight check \
                               --config FILE` looks at it; import reads what other servers have"
                .to_string(),
        }
    }
}

/// What a text is that no server had as its configuration.
pub fn stranger(text: &str) -> Option<Stranger> {
    let first = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    if first.starts_with("#!ipxe") {
        return Some(Stranger::Ipxe);
    }
    let cloud = Stranger::Answer("user-data of cloud-init or autoinstall", "user-data");
    if first.starts_with("#cloud-config") {
        return Some(cloud);
    }
    let lines = || text.lines().map(str::trim_end).take(LINES);
    let has = |what: &dyn Fn(&str) -> bool| lines().any(what);
    if first.starts_with('<') {
        if has(&|l| l.contains("suse.com/1.0/yast2ns") || l.contains("<profile")) {
            return Some(Stranger::Answer("a profile of AutoYaST", "autoinst.xml"));
        }
        let windows = has(&|l| l.contains("<unattend"));
        return windows
            .then_some(Stranger::Answer("an answer file of Windows Setup", "autounattend.xml"));
    }
    if first.starts_with('{') && text.contains("\"ignition\"") {
        return Some(Stranger::Answer("a configuration of Ignition", "config.ign"));
    }
    if has(&|l| l == "autoinstall:") {
        return Some(cloud);
    }
    let ours = ["[[profile]]", "[[machine]]", "[[media]]", "[[subnet]]", "[[mirror]]"];
    if has(&|l| ours.contains(&l)) {
        return Some(Stranger::Ours);
    }
    // `OWNER QUESTION TYPE VALUE`, of which every preseed has many of the owner d-i.
    if has(&|l| l.starts_with("d-i ") && l.contains('/')) {
        return Some(Stranger::Answer("a preseed", "preseed.cfg"));
    }
    if has(&|l| matches!(l, "%packages" | "%pre" | "%post") || l.starts_with("%packages ")) {
        return Some(Stranger::Answer("a kickstart", "ks.cfg"));
    }
    const COMMANDS: [&str; 14] = [
        "rootpw",
        "autopart",
        "clearpart",
        "bootloader",
        "timezone",
        "lang",
        "keyboard",
        "auth",
        "authconfig",
        "zerombr",
        "part",
        "url",
        "network",
        "selinux",
    ];
    let command = |l: &&str| l.split_whitespace().next().is_some_and(|w| COMMANDS.contains(&w));
    let many = lines().filter(command).take(3).count() == 3;
    many.then_some(Stranger::Answer("a kickstart", "ks.cfg"))
}

/// What a text is; `None` for none of them.
pub fn of(text: &str) -> Option<Kind> {
    if stranger(text).is_some() {
        return None;
    }
    let mut votes = [
        (Kind::DhcpdLeases, 0),
        (Kind::DnsmasqLeases, 0),
        (Kind::Dhcpd, 0),
        (Kind::Dnsmasq, 0),
        (Kind::Pxelinux, 0),
    ];
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    for line in lines.take(LINES) {
        for (kind, votes) in &mut votes {
            *votes += weight(*kind, line);
        }
    }
    // The first of those that have most: leases are made of dhcpd's statements, too.
    if !is_menu(text) {
        votes.iter_mut().filter(|(kind, _)| *kind == Kind::Pxelinux).for_each(|(_, n)| *n = 0);
    }
    let most = votes.iter().map(|(_, n)| *n).max().filter(|n| *n > 0)?;
    votes.iter().find(|(_, n)| *n == most).map(|(kind, _)| *kind)
}

/// Whether a text is built like a menu of pxelinux: entries, or what boots without one. Its other
/// words (`text`, `timeout`, `display`) are those of many files.
fn is_menu(text: &str) -> bool {
    let mut label = false;
    for line in text.lines().take(LINES) {
        let line = line.trim();
        let (first, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let one = !rest.is_empty() && !rest.contains(char::is_whitespace);
        let plain = !line.ends_with([';', '{']) && !rest.starts_with(['=', ':', '"']);
        match first.to_ascii_lowercase().as_str() {
            "label" => label = !rest.is_empty(),
            "menu" | "kernel" | "linux" | "append" | "localboot" | "com32" | "config" if label => {
                return true;
            }
            // A menu may be all in other files, or one kernel by its name.
            "kernel" | "ui" | "include" | "default" if one && plain => return true,
            "default" if rest.contains("initrd=") || rest.contains("root=") => return true,
            "menu" if rest.to_ascii_lowercase().starts_with("include ") => return true,
            _ => {}
        }
    }
    false
}

fn weight(kind: Kind, line: &str) -> u32 {
    let words: Vec<&str> = line.split_whitespace().take(8).collect();
    let first = words.first().copied().unwrap_or_default();
    let low = first.to_ascii_lowercase();
    let address = |t: &str| t.parse::<std::net::Ipv4Addr>().is_ok();
    let found = match kind {
        Kind::DhcpdLeases => {
            return match (first, words.get(1).is_some_and(|w| address(w))) {
                ("lease", true) => 8,
                ("server-duid" | "authoring-byte-order", _) => 4,
                _ => u32::from(line.starts_with("binding state") || first == "cltt"),
            };
        }
        Kind::DnsmasqLeases => {
            first.parse::<u64>().is_ok() && words.len() == 5 && address(words[2])
        }
        Kind::Dhcpd => {
            let known = [
                "subnet",
                "host",
                "option",
                "shared-network",
                "pool",
                "group",
                "class",
                "range",
                "filename",
                "next-server",
                "authoritative",
                "authoritative;",
                "allow",
                "deny",
                "ddns-update-style",
                "default-lease-time",
                "max-lease-time",
                "include",
                "if",
                "hardware",
                "fixed-address",
                "zone",
                "key",
                "log-facility",
                "omapi-port",
            ];
            known.contains(&low.as_str()) && line.ends_with([';', '{', '}'])
        }
        Kind::Dnsmasq => {
            let key = line.split('=').next().unwrap_or_default().trim();
            let known = [
                "interface",
                "enable-tftp",
                "port",
                "domain",
                "bind-interfaces",
                "no-resolv",
                "no-hosts",
                "address",
                "server",
                "local",
                "except-interface",
                "listen-address",
                "conf-dir",
                "conf-file",
                "resolv-file",
                "domain-needed",
                "bogus-priv",
                "expand-hosts",
                "bind-dynamic",
                "pxe-service",
                "pxe-prompt",
            ];
            let family = ["dhcp-", "tftp-", "log-"].iter().any(|f| key.starts_with(f));
            !key.contains(char::is_whitespace) && (family || known.contains(&key))
        }
        Kind::Pxelinux => {
            let known = [
                "label",
                "kernel",
                "append",
                "menu",
                "default",
                "timeout",
                "prompt",
                "localboot",
                "linux",
                "initrd",
                "ipappend",
                "sysappend",
                "ui",
                "com32",
                "ontimeout",
                "include",
                "display",
                "say",
                "text",
            ];
            known.contains(&low.as_str()) && !line.ends_with([';', '{']) && !first.contains('=')
        }
        Kind::Image => false,
    };
    u32::from(found)
}

/// Whether the sectors from 16 on are those of a volume: ISO 9660 (ECMA-119 section 8.1) or UDF
/// (ECMA-167 2/9.1). `bytes` begins with sector 16.
pub fn is_image(bytes: &[u8]) -> bool {
    const SECTOR: usize = 2048;
    bytes.chunks(SECTOR).any(|s| matches!(s.get(1..6), Some(b"CD001" | b"NSR02" | b"NSR03")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_imported_is_told_to_be_what_it_is() {
        for (text, name) in [
            (
                "# RHEL\ntext\nlang en_US\ntimezone UTC\nrootpw x\n%packages\n@core\n%end\n",
                "ks.cfg",
            ),
            ("install\ntext\ninclude x\nlang en_US\nkeyboard us\ntimezone UTC\n", "ks.cfg"),
            ("#_preseed_V1\nd-i debian-installer/locale string en_US\n", "preseed.cfg"),
            ("#cloud-config\nautoinstall:\n  version: 1\n", "user-data"),
            (
                "<?xml version=\"1.0\"?>\n<!DOCTYPE profile>\n<profile xmlns=\"x\">\n",
                "autoinst.xml",
            ),
            ("#!ipxe\ndhcp\nkernel http://h/vmlinuz\n", "iPXE"),
            ("[[profile]]\nname = \"x\"\nkernel = \"tftp/x\"\n", "already"),
        ] {
            assert_eq!(of(text), None, "{text}");
            let told = stranger(text).map(Stranger::told).unwrap_or_default();
            assert!(told.contains(name), "{text}: {told}");
        }
        // Words of a menu that are no menu.
        for text in ["text\ntimeout 5\nprompt x\n", "say hello\ndisplay me\n"] {
            assert_eq!((of(text), stranger(text)), (None, None), "{text}");
        }
        for text in ["INCLUDE pxelinux.cfg/other\n", "default vmlinuz initrd=i root=/dev/sda\n"] {
            assert_eq!(of(text), Some(Kind::Pxelinux), "{text}");
        }
    }

    #[test]
    fn texts_are_told_apart() {
        for (text, kind) in [
            (
                "subnet 10.0.0.0 netmask 255.0.0.0 {\n range 10.0.0.1 10.0.0.2;\n}\n",
                Some(Kind::Dhcpd),
            ),
            ("port=0\ndhcp-range=10.0.0.1,10.0.0.2\n", Some(Kind::Dnsmasq)),
            ("# menu\nDEFAULT linux\nLABEL linux\n KERNEL vmlinuz\n", Some(Kind::Pxelinux)),
            ("lease 10.0.0.1 {\n  starts never;\n}\n", Some(Kind::DhcpdLeases)),
            ("1790000000 52:54:00:00:00:01 10.0.0.1 a *\n", Some(Kind::DnsmasqLeases)),
            ("hello\n", None),
            ("", None),
            ("[subnet]\nnetwork = \"10.0.0.0/8\"\n", None),
        ] {
            assert_eq!(of(text), kind, "{text}");
        }
    }
}
