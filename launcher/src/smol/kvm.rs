//! KVM, as far as it can be known without booting a machine.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use crate::backend::Missing;

/// What stands in the way of a machine, and what mends it.
pub fn missing() -> Option<Missing> {
    look(
        Path::new("/dev/kvm"),
        &std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default(),
        ["kvm_intel", "kvm_amd"]
            .iter()
            .any(|module| Path::new("/sys/module").join(module).exists()),
    )
}

fn look(device: &Path, cpuinfo: &str, has_module: bool) -> Option<Missing> {
    let opened = OpenOptions::new().read(true).write(true).open(device);
    let (what, remedy) = match opened {
        Ok(_) if is_hardware(cpuinfo, has_module) => return None,
        Ok(_) => (
            "/dev/kvm is there, but this processor shows no hardware virtualization (neither vmx nor svm): libkrun does not boot on a KVM of software alone".to_owned(),
            "enable it in the firmware, or nested virtualization in the hypervisor that this host is a guest of; --backend docker or local need none".to_owned(),
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (
            "there is no /dev/kvm".to_owned(),
            "`sudo modprobe kvm_intel` or `sudo modprobe kvm_amd`; where that fails, enable virtualization (VT-x, AMD-V) in the firmware".to_owned(),
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => (
            "you may not use /dev/kvm".to_owned(),
            "`sudo usermod -aG kvm $USER`, then log in again".to_owned(),
        ),
        Err(error) => (
            format!("/dev/kvm cannot be opened: {error}"),
            "look at `ls -l /dev/kvm` and `dmesg | grep -i kvm`".to_owned(),
        ),
    };
    Some(Missing { what, remedy })
}

/// ARM's virtualization has no flag; there the device is all that can be asked.
fn is_hardware(cpuinfo: &str, has_module: bool) -> bool {
    if cfg!(not(target_arch = "x86_64")) {
        return true;
    }
    has_module
        || cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .flat_map(str::split_ascii_whitespace)
            .any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_lack_has_its_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("kvm");
        let absent = look(&device, "", true).unwrap();
        assert!(absent.what.contains("no /dev/kvm") && absent.remedy.contains("modprobe"));

        std::fs::write(&device, "").unwrap();
        assert!(look(&device, "flags\t\t: fpu svm sse\n", false).is_none());
        assert!(look(&device, "", true).is_none());
        if cfg!(target_arch = "x86_64") {
            let software = look(&device, "flags : fpu sse\nmodel name : vmx\n", false).unwrap();
            assert!(software.what.contains("software alone"), "{software}");
        }
        if !rustix::process::geteuid().is_root() {
            std::fs::set_permissions(&device, std::fs::Permissions::from_mode(0o0)).unwrap();
            let forbidden = look(&device, "", true).unwrap();
            assert!(forbidden.remedy.contains("usermod -aG kvm"), "{forbidden}");
        }
    }
}
