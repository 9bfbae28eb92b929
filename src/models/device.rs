//! Memory of the device: for a CPU, the machine's or its control group's, whichever is less.

use std::fs;
use std::path::{Path, PathBuf};

/// Total and available bytes as of now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

/// Reads `/proc/meminfo` and the control group of this process. A machine that tells nothing is taken to
/// have unlimited memory: the plan then still says what is needed.
pub fn cpu_memory() -> Memory {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| parse_meminfo(&text))
        .unwrap_or(Memory { total_bytes: u64::MAX, available_bytes: u64::MAX });
    match cgroup_memory() {
        Some(group) => Memory {
            total_bytes: machine.total_bytes.min(group.total_bytes),
            available_bytes: machine.available_bytes.min(group.available_bytes),
        },
        None => machine,
    }
}

fn parse_meminfo(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    Some(Memory { total_bytes: field("MemTotal:")?, available_bytes: field("MemAvailable:")? })
}

/// The tightest limit between this process's group and the root of the hierarchy (version 2, else 1).
fn cgroup_memory() -> Option<Memory> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let v2 = tightest(Path::new("/sys/fs/cgroup"), unified, "memory.max", "memory.current", "inactive_file ");
    v2.or_else(|| {
        let legacy = groups.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path))?;
        tightest(
            Path::new("/sys/fs/cgroup/memory"),
            legacy,
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file ",
        )
    })
}

fn tightest(root: &Path, group: &str, limit: &str, usage: &str, cache: &str) -> Option<Memory> {
    let leaf: PathBuf = root.join(group.trim_start_matches('/'));
    leaf.ancestors()
        .take_while(|dir| dir.starts_with(root))
        .filter_map(|dir| {
            let number = |file: &str| fs::read_to_string(dir.join(file)).ok()?.trim().parse::<u64>().ok();
            let total_bytes = number(limit)?;
            let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
            let cached =
                stat.lines().find_map(|line| line.strip_prefix(cache)?.parse::<u64>().ok()).unwrap_or(0);
            let used = number(usage)?.saturating_sub(cached);
            Some(Memory { total_bytes, available_bytes: total_bytes.saturating_sub(used) })
        })
        .min_by_key(|memory| memory.available_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        let text = "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    600 kB\n";
        let memory = parse_meminfo(text).unwrap();
        assert_eq!(memory, Memory { total_bytes: 1_024_000, available_bytes: 614_400 });
        assert_eq!(parse_meminfo("MemTotal: x kB"), None);
    }

    #[test]
    fn the_tightest_group_counts_without_its_cache() {
        let root = tempfile::tempdir().unwrap();
        let leaf = root.path().join("a/b");
        fs::create_dir_all(&leaf).unwrap();
        let write = |dir: &Path, file: &str, text: &str| fs::write(dir.join(file), text).unwrap();
        write(&leaf, "memory.max", "max\n");
        write(&leaf, "memory.current", "5\n");
        write(&root.path().join("a"), "memory.max", "1000\n");
        write(&root.path().join("a"), "memory.current", "700\n");
        write(&root.path().join("a"), "memory.stat", "anon 1\ninactive_file 200\n");
        let found = tightest(root.path(), "/a/b", "memory.max", "memory.current", "inactive_file ");
        assert_eq!(found, Some(Memory { total_bytes: 1000, available_bytes: 500 }));
        assert_eq!(tightest(root.path(), "/none", "memory.max", "memory.current", "x "), None);
    }
}
