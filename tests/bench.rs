//! Goal: `keybroker bench` measures what it says, every scenario with every field of its contract. Method: one small
//! round of everything with the built binary. How fast anything is is never asserted.

#![allow(clippy::unwrap_used)] // a helper of a test fails the test

use assert_cmd::Command;
use serde_json::Value;
use std::time::Duration;

/// Fields that every scenario has, and their types.
const NUMBERS: [&str; 9] =
    ["ratio", "goal", "median", "min", "max", "p50_ms", "p99_ms", "floor_p99_ms", "idle_share"];

fn bench(arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let output = Command::cargo_bin("keybroker")
        .unwrap()
        .arg("bench")
        .args(arguments)
        .args(["--output", "json"])
        .timeout(Duration::from_secs(300))
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap_or(-1), lines, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn every_scenario_gives_one_line_with_every_field() {
    let (code, lines, said) = bench(&["--quick"]);
    assert_eq!(code, 0, "{said}");
    let scenarios: Vec<&str> = lines.iter().filter_map(|line| line["scenario"].as_str()).collect();
    assert_eq!(
        scenarios,
        ["boot_storm_64", "production_p256", "production_p256_two_workers", "ocsp", "revoke_10000"]
    );
    for line in &lines {
        for field in NUMBERS {
            assert!(line[field].is_number(), "{field} in {line}");
        }
        assert!(line["limited_by"].is_string() && line["floor_median"].is_number(), "{line}");
        assert!(line["median"].as_f64().unwrap() > 0.0 && line["p99_ms"].as_f64().unwrap() > 0.0, "{line}");
    }
    assert!(lines[0]["confirm_median"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_unknown_scenario_is_wrong_usage() {
    let (code, lines, said) = bench(&["boot_storm_65"]);
    assert_eq!((code, lines.len()), (2, 0));
    assert!(said.contains("boot_storm_64"), "{said}");
}
