//! Promise: what the documents list, the code has, and the other way round.
//!
//! Method: names are read out of the pages and held against the code's own lists, or against the source's text.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

use keybroker::audit::event::EventKind;
use keybroker::audit::receipt::{BrokerCopyState, DestructionReason};
use keybroker::audit::verify::ProblemKind;
use keybroker::credential::{
    CertificateChange, CertificateState, EpochChange, EpochState, HolderCopy, KeyChange, KeyState,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// The text of src/, all files, without tests at their ends.
fn source(below: &str) -> String {
    let mut paths = Vec::new();
    files(&root().join("src").join(below), "rs", &mut paths);
    paths.retain(|path| !path.ends_with("tests.rs"));
    let text = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
    paths.iter().map(|path| text(path).split("#[cfg(test)]\nmod ").next().unwrap().to_owned()).collect()
}

/// Names in backquotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What stands between `before` and the next quotation mark, wherever `before` stands.
fn literals<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

fn assert_named<'a>(page: &str, names: impl IntoIterator<Item = &'a str>) {
    let text = self::page(page);
    let named = quoted(&text);
    let missing: Vec<_> = names.into_iter().filter(|name| !named.contains(name)).collect();
    assert!(missing.is_empty(), "{page} does not name {missing:?}");
}

/// The labelled edges of the diagram under `## HEADING`.
fn edges(heading: &str) -> BTreeSet<(String, String, String)> {
    let page = page("docs/states.md");
    let section = page.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let arrows = section.lines().filter(|line| line.contains("-->") && !line.contains("[*]"));
    arrows
        .map(|line| {
            let (from, rest) = line.trim().split_once(" --> ").unwrap();
            let (to, change) = rest.split_once(" : ").unwrap();
            (from.to_owned(), to.to_owned(), change.to_owned())
        })
        .collect()
}

#[test]
fn the_diagrams_are_the_transitions() {
    macro_rules! assert_diagram {
        ($heading:literal, $state:ident, $change:ident) => {
            let mut transitions = BTreeSet::new();
            for from in $state::ALL {
                for change in $change::ALL {
                    if let Ok(to) = from.after(*change) {
                        transitions.insert((from.to_string(), to.to_string(), change.to_string()));
                    }
                }
            }
            assert_eq!(edges($heading), transitions, "{}", $heading);
        };
    }
    assert_diagram!("Key", KeyState, KeyChange);
    assert_diagram!("Certificate", CertificateState, CertificateChange);
    assert_diagram!("Epoch", EpochState, EpochChange);
}

#[test]
fn the_audit_page_names_every_kind_of_event_and_every_value_of_a_receipt() {
    assert_named("docs/audit.md", EventKind::ALL.iter().map(|kind| kind.as_str()));
    assert_named("docs/audit.md", DestructionReason::ALL.iter().map(|reason| reason.as_str()));
    assert_named("docs/audit.md", HolderCopy::ALL.iter().map(|copy| copy.as_str()));
    assert_named("docs/audit.md", BrokerCopyState::ALL.iter().map(|state| state.as_str()));
    assert_named("docs/audit.md", ProblemKind::ALL.iter().map(|problem| problem.as_str()));
}

#[test]
fn the_operations_page_lists_every_metric_and_no_other() {
    let page = page("docs/operations.md");
    let listed: BTreeSet<&str> =
        quoted(&page).into_iter().filter(|name| name.starts_with("keybroker_")).collect();
    let source = source("");
    let emitted: BTreeSet<&str> = ["counter!(\"", "gauge!(\"", "histogram!(\""]
        .iter()
        .flat_map(|macro_call| literals(&source, macro_call))
        .collect();
    assert!(emitted.len() > 10, "{emitted:?}");
    assert_eq!(listed, emitted);
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_metrics_that_exist() {
    let operations = page("docs/operations.md");
    let listed: BTreeSet<&str> = quoted(&operations).into_iter().collect();
    for file in ["deploy/prometheus/alerts.yml", "deploy/grafana/keybroker.json"] {
        let text = page(file);
        let not_of_a_name = |c: char| c != '_' && !c.is_ascii_alphanumeric();
        let asked: BTreeSet<&str> = text
            .split(not_of_a_name)
            .filter(|word| word.starts_with("keybroker_"))
            // A histogram's buckets have names of their own.
            .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
            .collect();
        assert!(asked.len() > 5, "{file}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&listed).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}, which docs/operations.md does not list");
    }
}

#[test]
fn the_errors_page_names_every_reason_that_the_code_gives() {
    let (api, broker, identity) = (source("api"), source("broker"), source("identity"));
    let mut reasons = BTreeSet::new();
    for (text, before) in [
        (&broker, "code: \""),
        (&broker, "unavailable(\""),
        (&broker, "refused(\""),
        (&identity, "=> \""),
        (&api, "set_error_info(\n        \""),
    ] {
        reasons.extend(literals(text, before));
    }
    // answer(Code::X, "REASON", ...), on one line or on several.
    let flat: String = api.split_whitespace().collect::<Vec<_>>().join(" ");
    for rest in flat.split("answer( Code::").chain(flat.split("answer(Code::")).skip(1) {
        let reason = rest.split(", ").nth(1).unwrap_or_default();
        reasons.extend(reason.strip_prefix('"').and_then(|reason| reason.strip_suffix('"')));
    }
    let capitals = |name: &&str| name.len() > 4 && name.chars().all(|c| c == '_' || c.is_ascii_uppercase());
    let reasons: BTreeSet<&str> = reasons.into_iter().filter(capitals).collect();
    for known in [
        "NOT_AUTHENTICATED",
        "POOL_EMPTY",
        "INTERNAL",
        "OTHER_LISTENER",
        "CLAIM_FOREIGN",
        "SPENT",
        "STORE_FULL",
    ] {
        assert!(reasons.contains(known), "{known} was not found in the source: {reasons:?}");
    }
    assert_named("docs/errors.md", reasons);
}

#[test]
fn every_link_and_every_page_that_is_named_exists() {
    let mut pages = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    files(&root().join("docs"), "md", &mut pages);
    let mut missing = Vec::new();
    for file in &pages {
        let text = std::fs::read_to_string(file).unwrap();
        for target in text.split("](").skip(1).map(|rest| rest.split([')', '#']).next().unwrap()) {
            let local = !target.is_empty() && !target.contains("://");
            if local && !file.parent().unwrap().join(target).exists() {
                missing.push(format!("{}: {target}", file.display()));
            }
        }
        // Tests and sources that a page gives as evidence.
        for name in quoted(&text) {
            let is_path = ["src/", "tests/", "docs/", "migrations/"].iter().any(|top| name.starts_with(top));
            if is_path && !name.contains(['*', ' ', ':']) && !root().join(name).exists() {
                missing.push(format!("{}: {name}", file.display()));
            }
        }
    }
    let source = source("");
    for rest in source.split("docs/").skip(1) {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || "./_-".contains(c))).unwrap_or(rest.len());
        let name = rest[..end].trim_end_matches(['.', '/']);
        if !root().join("docs").join(name).exists() {
            missing.push(format!("src names docs/{name}"));
        }
    }
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
}
