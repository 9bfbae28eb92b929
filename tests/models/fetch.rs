//! Models from a hub and from a package, against stand-ins on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use adit::models::error::ModelError;
use adit::models::progress::Meter;
use adit::models::{hub, package};
use sha2::{Digest, Sha256};

use crate::support::hub::HubStandIn;
use crate::support::tiny::{self, Arch};

fn options(endpoint: &str, cache: &Path) -> hub::Options {
    hub::Options { endpoint: Some(endpoint.into()), token: None, cache_dir: cache.into(), offline: false }
}

#[test]
fn a_repository_is_fetched_with_progress_and_found_again_offline() {
    let dir = tempfile::tempdir().unwrap();
    let files = tiny::sharded_model(dir.path().join("files"), Arch::Llama, 1);
    std::fs::write(files.join("modeling.py"), "never read").unwrap();
    let stand_in = HubStandIn::start(&[("tiny/model", files.clone())], None);
    let cache = dir.path().join("cache");
    let options = options(&stand_in.endpoint, &cache);
    let mut last = (0, 0);
    let mut follow = |meter: &mut Meter| {
        let reading = meter.reading(std::time::Instant::now());
        last = (reading.bytes_done, reading.bytes_total);
    };
    let found = hub::fetch("tiny/model", "main", &options, &mut follow).unwrap();
    assert_eq!(last.0, last.1);
    for name in ["config.json", "tokenizer.json", "model-00002-of-00003.safetensors"] {
        assert_eq!(
            std::fs::read(found.join(name)).unwrap(),
            std::fs::read(files.join(name)).unwrap(),
            "{name}"
        );
    }
    assert!(!found.join("modeling.py").exists());
    let first = stand_in.requests().len();
    hub::fetch("tiny/model", "main", &options, &mut |_| {}).unwrap();
    assert_eq!(stand_in.requests().len(), first, "nothing is fetched twice");
    let offline =
        hub::Options { offline: true, endpoint: Some("http://127.0.0.1:9".into()), ..options.clone() };
    assert_eq!(hub::fetch("tiny/model", "main", &offline, &mut |_| {}).unwrap(), found);
    // a hub that is away does not matter to what is cached, and is named otherwise
    let away = hub::Options { offline: false, ..offline.clone() };
    assert_eq!(hub::fetch("tiny/model", "main", &away, &mut |_| {}).unwrap(), found);
    for (options, is_passing) in [(offline, false), (away, true)] {
        let failed = hub::fetch("tiny/other", "main", &options, &mut |_| {}).unwrap_err();
        assert!(failed.to_string().contains("tiny/other"), "{failed}");
        assert_eq!(failed.is_passing(), is_passing, "{failed}");
    }
    std::fs::remove_file(found.join("model-00003-of-00003.safetensors")).unwrap();
    assert_eq!(hub::cached("tiny/model", "main", &options), None, "half a checkpoint is none");
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let files = tiny::tiny_model(dir.path().join("files"), Arch::Llama, 2);
    let stand_in = HubStandIn::start(&[("tiny/model", files.clone())], None);
    stand_in.cut_after(1_000);
    let options = options(&stand_in.endpoint, &dir.path().join("cache"));
    let found = hub::fetch("tiny/model", "main", &options, &mut |_| {}).unwrap();
    let weights = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
    assert!(weights(&found) == weights(&files));
    let requests = stand_in.requests();
    let ranges: Vec<&str> =
        requests.iter().filter(|(name, _)| name == "model.safetensors").map(|(_, range)| &**range).collect();
    assert_eq!(ranges, ["bytes=0-", "bytes=1000-"]);
}

#[test]
fn a_private_repository_needs_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let files = tiny::tiny_model(dir.path().join("files"), Arch::Llama, 3);
    let stand_in = HubStandIn::start(&[("tiny/model", files)], Some("secret"));
    let mut options = options(&stand_in.endpoint, &dir.path().join("cache/hub"));
    let refused = hub::fetch("tiny/model", "main", &options, &mut |_| {}).unwrap_err();
    assert!(matches!(&refused, ModelError::Hub { is_passing: false, .. }), "{refused}");
    assert!(refused.hint().contains("HF_TOKEN"));
    options.token = Some("secret".into());
    hub::fetch("tiny/model", "main", &options, &mut |_| {}).unwrap();
}

/// A "python" that copies a prepared file where pip and the unpacker would put theirs.
pub fn fake_python(dir: &Path, payload: &Path) -> PathBuf {
    // pip: the folder follows --dest; unpacking: the target is the last argument
    let script = format!(
        "if [ \"$2\" = pip ]; then while [ \"$1\" != --dest ]; do shift; done; echo x > \"$2/some.whl\"; \
         else for last; do :; done; cp {} \"$last\"; fi",
        payload.display()
    );
    script_as_python(dir, &script)
}

fn script_as_python(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("python");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// pip: the folder follows --dest, and the wheel holds what `payloads` has under the requirement; unpacking: the
/// target is the last argument.
fn pip_stand_in(dir: &Path, payloads: &Path) -> PathBuf {
    let script = format!(
        "if [ \"$2\" = pip ]; then for last; do :; done; while [ \"$1\" != --dest ]; do shift; done; \
         [ -f \"{0}/$last\" ] || {{ echo 'ERROR: No matching distribution found'; exit 1; }}; \
         cp \"{0}/$last\" \"$2/some.whl\"; \
         else for last; do :; done; cp \"$4\" \"$last\"; fi",
        payloads.display()
    );
    script_as_python(dir, &script)
}

fn sha256(bytes: &[u8]) -> &'static str {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>().leak()
}

pub fn part(requirement: &'static str, contents: &[u8]) -> package::Part {
    let bytes = contents.len() as u64;
    package::Part { requirement, wheel_bytes: bytes, member: "m", bytes, sha256: sha256(contents) }
}

pub fn package_of(
    file: &'static str,
    parts: impl IntoIterator<Item = package::Part>,
    whole: &[u8],
) -> package::Package {
    package::Package {
        parts: parts.into_iter().collect::<Vec<_>>().leak(),
        file,
        bytes: whole.len() as u64,
        sha256: sha256(whole),
        ..package::PACKAGES[0].clone()
    }
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn a_package_is_checked_before_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("one==1"), b"the model's bytes").unwrap();
    let python = pip_stand_in(dir.path(), dir.path());
    let cache_dir = dir.path().join("cache");
    let options = package::Options { cache_dir: cache_dir.clone(), python, hub: None };
    let sound = package_of("m.gguf", [part("one==1", b"the model's bytes")], b"the model's bytes");
    let found = package::fetch_package(&sound, &options, &mut |_| {}).unwrap();
    assert_eq!(std::fs::read(&found).unwrap(), b"the model's bytes");
    // the cache serves without python, until it is damaged
    let without = package::Options { python: "/no/such/python".into(), ..options.clone() };
    assert_eq!(package::fetch_package(&sound, &without, &mut |_| {}).unwrap(), found);
    std::fs::write(&found, b"the model's bytez").unwrap();
    let failed = package::fetch_package(&sound, &without, &mut |_| {}).unwrap_err();
    assert!(failed.to_string().contains("install python3"), "{failed}");
    assert_eq!(package::fetch_package(&sound, &options, &mut |_| {}).unwrap(), found);
    // other contents than expected are not kept, nor is anything else
    let other = package_of("other.gguf", [part("one==1", b"expected")], b"expected");
    let failed = package::fetch_package(&other, &options, &mut |_| {}).unwrap_err();
    assert!(failed.to_string().contains("SHA-256"), "{failed}");
    assert_eq!(names(&cache_dir), ["m.gguf"]);
}

#[test]
fn parts_make_one_file_and_a_part_that_is_gone_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("one==1"), b"first, ").unwrap();
    std::fs::write(dir.path().join("two==1"), b"second").unwrap();
    let python = pip_stand_in(dir.path(), dir.path());
    let cache_dir = dir.path().join("cache");
    let options = package::Options { cache_dir: cache_dir.clone(), python, hub: None };
    let (one, two) = (part("one==1", b"first, "), part("two==1", b"second"));
    let whole = package_of("whole.gguf", [one.clone(), two.clone()], b"first, second");
    let mut seen = Vec::new();
    let found = package::fetch_package(&whole, &options, &mut |progress| seen.push(progress)).unwrap();
    assert_eq!(std::fs::read(&found).unwrap(), b"first, second");
    assert!(seen.iter().all(|progress| progress.bytes_total == 13), "{seen:?}");
    // each part is what it should be, the whole is not
    let turned = package_of("turned.gguf", [two, one.clone()], b"first, second");
    let failed = package::fetch_package(&turned, &options, &mut |_| {}).unwrap_err();
    assert!(failed.to_string().contains("SHA-256 of its parts"), "{failed}");
    let gone = package_of("gone.gguf", [one, part("three==1", b"?")], b"first, ?");
    let failed = package::fetch_package(&gone, &options, &mut |_| {}).unwrap_err();
    let text = failed.to_string();
    assert!(text.contains("three==1") && text.contains("does not have it any more"), "{text}");
    assert!(failed.is_passing() && !failed.hint().is_empty());
    assert_eq!(names(&cache_dir), ["whole.gguf"]);
}

#[test]
fn known_packages_add_up() {
    for package in package::PACKAGES {
        assert_eq!(
            package.parts.iter().map(|part| part.bytes).sum::<u64>(),
            package.bytes,
            "{}",
            package.name
        );
        for part in package.parts {
            assert!(part.requirement.contains("==") && part.sha256.len() == 64, "{}", part.requirement);
        }
        assert!(package.file.ends_with(".gguf") && package.sha256.len() == 64);
    }
}
