//! Promise: the modules know what docs/ARCHITECTURE.md says that they may know, and nothing else.
//!
//! Method: the table is read out of the document and held against every `crate::` path in src/; the absences that the
//! document names are looked for in the text.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Lines of a file before its tests.
const LONGEST_FILE: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Source {
    /// Relative to src/.
    path: String,
    text: String,
}

impl Source {
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// (number, line) of every line that is no comment.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The text before the tests at its end; nothing of a file of tests.
    fn without_tests(&self) -> &str {
        if self.path.ends_with("/tests.rs") {
            return "";
        }
        self.text.split("#[cfg(test)]\nmod ").next().unwrap()
    }
}

fn files(directory: &Path, skip: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if skip.contains(&path.file_name().unwrap().to_str().unwrap()) {
            continue;
        } else if path.is_dir() {
            files(&path, skip, found);
        } else {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    files(&src, &[], &mut paths);
    assert!(paths.len() > 50, "only {} files in {}", paths.len(), src.display());
    paths
        .into_iter()
        .map(|path| Source {
            text: std::fs::read_to_string(&path).unwrap(),
            path: path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned(),
        })
        .filter(|source| source.module() != "lib")
        .collect()
}

/// Names in backquotes.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Module -> what it may import, of the document's table.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let document = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let rows = document.lines().skip_while(|line| !line.starts_with("| module ")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (quoted(cells[1]).into_iter().next().unwrap(), quoted(cells[3]))
        })
        .collect()
}

/// The modules that a line names by `crate::` or, in main.rs, by `keybroker::`.
fn named(line: &str) -> Vec<&str> {
    ["crate::", "keybroker::"]
        .into_iter()
        .flat_map(|prefix| line.match_indices(prefix).map(move |(at, _)| (at, at + prefix.len())))
        // `$crate::` is a macro's, and is where it is used.
        .filter(|(at, _)| {
            !line[..*at].ends_with(|before: char| before == '$' || before == '_' || before.is_alphanumeric())
        })
        .map(|(_, end)| {
            let rest = &line[end..];
            let length = rest.find(|c: char| !(c == '_' || c.is_ascii_lowercase())).unwrap_or(rest.len());
            &rest[..length]
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn assert_none(found: Vec<String>, what: &str) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Lines of code (tests included) with `needle`, outside the files that `allowed` accepts.
fn lines_with(needle: &str, allowed: impl Fn(&Source) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !allowed(source)) {
        for (number, line) in source.code().filter(|(_, line)| line.contains(needle)) {
            found.push(format!("src/{}:{number}: {}", source.path, line.trim()));
        }
    }
    found
}

#[test]
fn every_module_imports_what_the_table_allows() {
    let table = table();
    let sources = sources();
    let modules: BTreeSet<&str> = sources.iter().map(Source::module).collect();
    let rows: BTreeSet<&str> = table.keys().map(String::as_str).collect();
    assert_eq!(rows, modules, "the table's rows and the modules of src/");
    let mut found = Vec::new();
    let mut used: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for source in &sources {
        for (number, line) in source.code() {
            for name in named(line) {
                if name == source.module() || !modules.contains(name) {
                    continue;
                }
                used.entry(source.module()).or_default().insert(name.to_owned());
                if !table[source.module()].contains(name) {
                    found.push(format!("src/{}:{number} imports {name}: {}", source.path, line.trim()));
                }
            }
        }
    }
    assert_none(found, "imports that docs/ARCHITECTURE.md does not allow");
    for (module, allowed) in &table {
        let used = used.remove(module.as_str()).unwrap_or_default();
        let unused: Vec<_> = allowed.difference(&used).collect();
        assert!(unused.is_empty(), "the table allows {module} to import {unused:?}, and it does not");
    }
}

#[test]
fn the_api_knows_the_stores_records_only_and_the_command_line_opens_it_in_one_place() {
    let calls = lines_with("crate::store", |source| source.module() != "api");
    let others = calls.into_iter().filter(|line| !line.contains("crate::store::records")).collect();
    assert_none(others, "api/ uses more of the store than its records");
    let elsewhere = |source: &Source| source.module() != "cli" || source.path == "cli/assembly.rs";
    assert_none(lines_with("crate::store", elsewhere), "cli/ touches the store outside assembly.rs");
    let client = |source: &Source| source.module() != "api" || source.path == "api/client.rs";
    assert_none(lines_with("crate::server", client), "api/ imports server outside client.rs");
}

#[test]
fn libraries_stay_where_they_belong() {
    let within = |modules: &'static [&'static str]| move |source: &Source| modules.contains(&source.module());
    assert_none(lines_with("cryptoki", within(&["hsm"])), "PKCS#11 outside hsm/");
    assert_none(lines_with("sqlx", within(&["store"])), "SQL outside store/");
    for needle in ["tonic::", "prost::", "proto::"] {
        let found = lines_with(needle, within(&["api", "server", "cli"]));
        assert_none(found, "gRPC outside api/, server/ and cli/");
    }
    for needle in ["SystemTime::now", "now_utc", "UtcDateTime::now", "Utc::now"] {
        assert_none(lines_with(needle, within(&["clock"])), "the clock is read outside clock.rs");
    }
}

#[test]
fn a_certificate_is_accepted_by_one_module_only() {
    // The demo plays VNFCIs and relying parties, which judge by another implementation, on purpose.
    let allowed =
        |source: &Source| source.path.starts_with("ca/path/") || source.path.starts_with("cli/demo/");
    for needle in ["verify_for_usage", "WebPkiServerVerifier", "WebPkiClientVerifier", "RootCertStore"] {
        // Nor are the floors of the benchmark part of the broker, nor clients in its tests.
        let allowed = |source: &Source| {
            allowed(source) || source.path.starts_with("cli/bench/") || source.path == "server/tests.rs"
        };
        assert_none(lines_with(needle, allowed), "paths are judged outside ca/path/");
    }
}

#[test]
fn nothing_is_unwrapped_without_a_reason() {
    let mut found = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.without_tests().lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let unwraps =
                [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("].iter().any(|u| line.contains(u));
            let reasoned =
                lines[index.saturating_sub(4)..=index].iter().any(|l| l.contains("// Unwrap safety: "));
            if unwraps && !reasoned && !line.trim_start().starts_with("//") {
                found.push(format!("src/{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    assert_none(found, "unwrap or expect without `// Unwrap safety:`");
}

#[test]
fn no_file_is_too_long_to_be_read() {
    let long = |source: &Source| source.without_tests().lines().count() > LONGEST_FILE;
    let found: Vec<_> = sources().into_iter().filter(long).map(|source| source.path).collect();
    assert_none(found, "over 600 lines before the tests");
}

#[test]
fn nothing_is_left_to_be_done() {
    // Written so that this file does not find itself.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    let mut paths = Vec::new();
    files(root(), &["target", ".git", "Cargo.lock", "LICENSE", "__pycache__"], &mut paths);
    let mut found = Vec::new();
    for path in paths {
        // What is no text has no marks.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert_none(found, "marks of unfinished work");
}
