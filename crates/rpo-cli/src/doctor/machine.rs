//! What this machine and this program have.

use std::path::Path;

use indicatif::HumanBytes;
use rpo::burn::tensor::Device;
use rpo::device::{NAMES, Precision, WIDE, find, instructions};
use rpo::model::Compute;

use crate::{settings, version};

/// Program, processor, memory, precision, devices and cache, a line each.
pub fn lines() -> Vec<String> {
    vec![format!("rpo {}", version::version()), processor(), memory(), precision(), devices(), cache()]
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = field(&info, "model name").unwrap_or(std::env::consts::ARCH);
    let threads = crate::place::threads();
    let asked = std::env::var("RAYON_NUM_THREADS").ok().map(|n| format!(" (RAYON_NUM_THREADS asks for {n})"));
    let found = instructions();
    let instructions = if found.is_empty() { "no vector instructions that are used".into() } else { found.join(", ") };
    format!("processor: {name}, {threads} threads{}; {instructions}", asked.unwrap_or_default())
}

/// Bytes of this machine's memory, where the system says so.
pub fn total_memory() -> Option<u64> {
    bytes_of("MemTotal")
}

fn bytes_of(name: &str) -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    field(&info, name)?.strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn memory() -> String {
    match (total_memory(), bytes_of("MemAvailable")) {
        (Some(total), Some(free)) => format!("memory: {}, of which {} are free", HumanBytes(total), HumanBytes(free)),
        _ => "memory: unknown, since this system does not say".into(),
    }
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim());
    text.lines().find_map(value)
}

fn precision() -> String {
    let device = Device::flex();
    match Precision::Auto.on(&device, WIDE) {
        Compute::Bf16 => format!(
            "precision auto: bf16, which is faster here, for models that are at least {WIDE} wide (d_model), f32 for others"
        ),
        Compute::F32 if Precision::Bf16.on(&device, WIDE) == Compute::Bf16 => {
            "precision auto: f32; this processor has products in bfloat16 (--precision bf16), whose speed was not measured yet".into()
        }
        Compute::F32 => "precision auto: f32; this processor has no products in bfloat16 that would be faster".into(),
    }
}

fn devices() -> String {
    let there: Vec<&str> = NAMES.into_iter().filter(|name| find(name).is_ok()).collect();
    format!("devices compiled in: {}", there.join(", "))
}

fn cache() -> String {
    let dir = settings::cache();
    let free = dir.ancestors().find(|dir| dir.exists()).and_then(free_space);
    let free = free.map_or("free space unknown".into(), |bytes| format!("{} free", HumanBytes(bytes)));
    format!("cache: {}, {free}", dir.display())
}

/// Bytes that this user may still write to the file system of `dir`.
#[cfg(unix)]
fn free_space(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_names() {
        let text = "MemTotalX: 1 kB\nMemTotal:       5 kB\nmodel name\t: A: b\n";
        assert_eq!((field(text, "MemTotal"), field(text, "model name")), (Some("5 kB"), Some("A: b")));
        assert_eq!(field(text, "cores"), None);
    }

    #[cfg(unix)]
    #[test]
    fn there_is_free_space_somewhere() {
        assert!(free_space(&std::env::temp_dir()).is_some_and(|bytes| bytes > 0));
    }
}
