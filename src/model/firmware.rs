//! THE table: what a client architecture code of DHCP option 93 (RFC 4578 section 2.1, numbers
//! from IANA's "Processor Architecture Types") means to us.
//!
//! A new architecture is a row here and a captured packet in `tests/golden/`.

use std::fmt;

/// The processor that the loader must be built for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Cpu {
    X86,
    X64,
    Arm32,
    Arm64,
    Riscv64,
    Loong64,
}

impl Cpu {
    /// As iPXE says it, in its setting `buildarch`.
    pub fn buildarch(self) -> &'static str {
        match self {
            Cpu::X86 => "i386",
            Cpu::X64 => "x86_64",
            Cpu::Arm32 => "arm32",
            Cpu::Arm64 => "arm64",
            Cpu::Riscv64 => "riscv64",
            Cpu::Loong64 => "loong64",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Family {
    Bios,
    Uefi,
}

/// How the firmware itself fetches the loader.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Transport {
    /// PXE 2.1: by TFTP, option 60 `PXEClient`.
    Pxe,
    /// UEFI HTTP boot (UEFI 2.10 section 24.7): by HTTP, option 60 `HTTPClient`.
    Http,
}

/// One row of the table.
#[derive(PartialEq, Eq, Debug, Hash)]
pub struct Firmware {
    /// The code in option 93.
    pub code: u16,
    /// What the configuration, the log and `explain --arch` call it. Two codes may share a name.
    pub name: &'static str,
    /// The architecture without the transport: what `arch` in a machine's match compares, and the
    /// key of `[ipxe.loaders]`.
    pub arch: &'static str,
    pub cpu: Cpu,
    pub family: Family,
    pub transport: Transport,
    /// The loader's file name in Debian's `ipxe` package, or the name that `[ipxe] dir` must hold
    /// where that package has none.
    pub loader: &'static str,
}

const fn row(
    code: u16,
    name: &'static str,
    arch: &'static str,
    cpu: Cpu,
    family: Family,
    transport: Transport,
    loader: &'static str,
) -> Firmware {
    Firmware { code, name, arch, cpu, family, transport, loader }
}

use Cpu::*;
use Family::*;
use Transport::*;

/// `snponly.efi` rather than `ipxe.efi` on x64: it drives the card by the firmware's own driver,
/// which demonstrably works since it fetched the loader. Codes 7 and 9 both mean x64: the RFC's
/// list and EDK2 disagree about which is which, and real firmware sends either.
pub static TABLE: &[Firmware] = &[
    row(0, "bios", "bios", X86, Bios, Pxe, "undionly.kpxe"),
    row(6, "uefi-ia32", "uefi-ia32", X86, Uefi, Pxe, "ipxe-ia32.efi"),
    row(7, "uefi-x64", "uefi-x64", X64, Uefi, Pxe, "snponly.efi"),
    row(9, "uefi-x64", "uefi-x64", X64, Uefi, Pxe, "snponly.efi"),
    row(10, "uefi-arm32", "uefi-arm32", Arm32, Uefi, Pxe, "ipxe-arm32.efi"),
    row(11, "uefi-arm64", "uefi-arm64", Arm64, Uefi, Pxe, "ipxe-arm64.efi"),
    row(15, "uefi-ia32-http", "uefi-ia32", X86, Uefi, Http, "ipxe-ia32.efi"),
    row(16, "uefi-x64-http", "uefi-x64", X64, Uefi, Http, "snponly.efi"),
    row(18, "uefi-arm32-http", "uefi-arm32", Arm32, Uefi, Http, "ipxe-arm32.efi"),
    row(19, "uefi-arm64-http", "uefi-arm64", Arm64, Uefi, Http, "ipxe-arm64.efi"),
    row(27, "uefi-riscv64", "uefi-riscv64", Riscv64, Uefi, Pxe, "ipxe-riscv64.efi"),
    row(28, "uefi-riscv64-http", "uefi-riscv64", Riscv64, Uefi, Http, "ipxe-riscv64.efi"),
    row(39, "uefi-loong64", "uefi-loong64", Loong64, Uefi, Pxe, "ipxe-loong64.efi"),
    row(40, "uefi-loong64-http", "uefi-loong64", Loong64, Uefi, Http, "ipxe-loong64.efi"),
];

impl Firmware {
    /// The row of an option 93 code; `None` is a code we have no loader for, which is refused by
    /// name and never handed the BIOS loader.
    pub fn by_code(code: u16) -> Option<&'static Firmware> {
        TABLE.iter().find(|f| f.code == code)
    }

    /// The row of a name (`bios`, `uefi-x64`, `uefi-x64-http`, …).
    pub fn by_name(name: &str) -> Option<&'static Firmware> {
        TABLE.iter().find(|f| f.name == name)
    }

    /// The architectures, each once, in the table's order.
    pub fn arches() -> Vec<&'static str> {
        let mut all: Vec<&str> = Vec::new();
        for f in TABLE {
            if !all.contains(&f.arch) {
                all.push(f.arch);
            }
        }
        all
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_names_mean_one_thing() {
        for (i, a) in TABLE.iter().enumerate() {
            for b in &TABLE[i + 1..] {
                assert_ne!(a.code, b.code);
                if a.name == b.name {
                    assert_eq!((a.arch, a.transport, a.loader), (b.arch, b.transport, b.loader));
                }
            }
        }
        assert!(Firmware::by_code(1).is_none(), "NEC PC-98 is not handed the BIOS loader");
    }
}
