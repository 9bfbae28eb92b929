//! Dockerfile and docker-compose.yml, as far as they can be checked without running them.

use std::collections::BTreeSet;
use std::path::Path;

use super::readme::{environment_names, is_variable, read};
use super::sources;

/// Read by the images that adit is not.
const OF_OTHERS: [&str; 6] = [
    "POSTGRES_USER",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD",
    "POSTGRES_INITDB_ARGS",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
];

/// What the build stage gets from this folder.
fn copied() -> BTreeSet<String> {
    let dockerfile = read("Dockerfile");
    let lines = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY "));
    let ours = lines.filter(|line| !line.starts_with("--from"));
    ours.flat_map(|line| {
        let mut words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        words.pop();
        words
    })
    .collect()
}

#[test]
fn the_image_gets_what_the_build_needs() {
    let copied = copied();
    let ignored = read(".dockerignore");
    for path in &copied {
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(),
            "COPY of {path}, which is not there"
        );
        assert!(!ignored.lines().any(|line| line.trim_matches('/') == path), "{path} is ignored");
    }
    // queries are checked against .sqlx because .cargo says so; migrations are compiled in
    for need in
        ["Cargo.toml", "Cargo.lock", ".cargo", ".sqlx", "migrations", "build", "src", "benches", "tests"]
    {
        assert!(copied.contains(need), "{need} is not copied");
    }
    let mut included = 0;
    for source in sources() {
        let depth = source.path.matches('/').count() + 1;
        for rest in source.text.split("include_str!(\"").skip(1) {
            let path = rest.split('"').next().unwrap();
            let Some(outside) = path.strip_prefix(&"../".repeat(depth)) else { continue };
            included += 1;
            let top = outside.split('/').next().unwrap();
            assert!(copied.contains(top), "{} includes {outside}, which is not copied", source.path);
        }
    }
    assert!(included > 0, "the demo's sample is included from outside src");
}

#[test]
fn variables_of_image_and_composition_are_read_by_somebody() {
    let names = environment_names();
    let (dockerfile, compose) = (read("Dockerfile"), read("docker-compose.yml"));
    let set = |line: &str| line.trim().split([':', '=']).next().unwrap_or_default().to_string();
    let of_image = dockerfile.lines().filter_map(|line| line.strip_prefix("ENV ")).map(set);
    let of_services = compose.lines().filter(|line| !line.trim_start().starts_with('#')).map(set);
    let all: Vec<String> = of_image.chain(of_services).filter(|name| is_variable(name)).collect();
    assert!(all.len() > 10, "{all:?}");
    let odd = all.iter().filter(|name| !names.contains(*name) && !OF_OTHERS.contains(&name.as_str()));
    assert_eq!(odd.collect::<Vec<_>>(), Vec::<&String>::new());
    // every model can be configured
    for name in names.iter().filter(|name| name.ends_with("_PATH")) {
        assert!(compose.contains(&format!("{name}: ${{{name}:-}}")), "{name} does not reach the container");
    }
}

#[test]
fn image_and_composition_agree_with_the_settings() {
    let (dockerfile, compose) = (read("Dockerfile"), read("docker-compose.yml"));
    assert!(dockerfile.contains("EXPOSE 8080") && dockerfile.contains("0.0.0.0:8080"));
    assert!(
        compose.contains("127.0.0.1:8080:8080"),
        "published on loopback only, as no keys are asked for by default"
    );
    assert!(dockerfile.contains("/readyz"));
    let grace: u64 = compose
        .lines()
        .find_map(|line| line.trim().strip_prefix("stop_grace_period: ")?.strip_suffix('s')?.parse().ok())
        .unwrap();
    assert!(grace * 1000 > adit::config::settings::Settings::default().http.shutdown_grace_ms);
    for profile in ["[cpu]", "[gpu]", "[cpu, gpu]"] {
        assert!(compose.contains(&format!("profiles: {profile}")), "{profile}");
    }
    let toolchain = read("Cargo.toml");
    let version = toolchain.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{}", version.trim_matches('"'))), "{version}");
}
