//! Figures of rounds, and the line that a scenario ends with.

use super::machine::IdleGate;
use serde_json::{Map, Value, json};

/// What one side of a scenario did, round by round.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// Per second, one per round.
    pub(super) rates: Vec<f64>,
    /// In milliseconds, of all rounds.
    pub(super) latencies: Vec<f64>,
}

impl Series {
    /// Adds a round.
    pub(super) fn add(&mut self, rate: f64, latencies: impl IntoIterator<Item = f64>) {
        self.rates.push(rate);
        self.latencies.extend(latencies);
    }
}

/// What a scenario found.
pub(super) struct Found<'a> {
    /// Its name.
    pub(super) scenario: &'a str,
    /// The ratio that is wanted at least.
    pub(super) goal: f64,
    /// What is counted per second.
    pub(super) unit: &'a str,
    /// The broker's side.
    pub(super) ours: &'a Series,
    /// What it is held against.
    pub(super) floor: &'a Series,
    /// How idle the machine was.
    pub(super) idle: &'a IdleGate,
    /// Further fields.
    pub(super) more: Value,
}

impl Found<'_> {
    /// One object with the fields that every scenario has, and its own.
    pub(super) fn line(self) -> Value {
        let (ours, floor) = (self.ours, self.floor);
        let ratios: Vec<f64> = ours
            .rates
            .iter()
            .zip(&floor.rates)
            .map(|(ours, floor)| ours / floor.max(f64::MIN_POSITIVE))
            .collect();
        let mut line = Map::new();
        let mut put = |name: &str, value: Value| line.insert(name.to_owned(), value);
        put("scenario", json!(self.scenario));
        put("ratio", rounded(median(&ratios), 3));
        put("goal", json!(self.goal));
        put("median", rounded(median(&ours.rates), 1));
        put("min", rounded(percentile(&ours.rates, 0.0), 1));
        put("max", rounded(percentile(&ours.rates, 1.0), 1));
        put("p50_ms", rounded(median(&ours.latencies), 2));
        put("p99_ms", rounded(percentile(&ours.latencies, 0.99), 2));
        put("floor_p99_ms", rounded(percentile(&floor.latencies, 0.99), 2));
        put("idle_share", rounded(self.idle.lowest(), 3));
        put("unit", json!(self.unit));
        put("floor_median", rounded(median(&floor.rates), 1));
        put("floor_min", rounded(percentile(&floor.rates, 0.0), 1));
        put("floor_max", rounded(percentile(&floor.rates, 1.0), 1));
        put("floor_p50_ms", rounded(median(&floor.latencies), 2));
        put("ratios", ratios.iter().map(|ratio| rounded(*ratio, 3)).collect());
        put("rounds", json!(ratios.len()));
        put("processors", json!(std::thread::available_parallelism().map_or(0, usize::from)));
        put("optimised", json!(!cfg!(debug_assertions)));
        if let Value::Object(more) = self.more {
            line.extend(more);
        }
        Value::Object(line)
    }
}

/// The middle value; 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value below or at which this share (0 to 1) of all lies; 0 of nothing.
pub(super) fn percentile(values: &[f64], share: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).or(sorted.last()).copied().unwrap_or(0.0)
}

/// A figure without digits that mean nothing.
pub(super) fn rounded(value: f64, digits: i32) -> Value {
    let scale = 10_f64.powi(digits);
    json!((value * scale).round() / scale)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn medians_and_percentiles_are_of_the_values_themselves() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert_eq!((percentile(&hundred, 0.0), percentile(&hundred, 1.0)), (1.0, 100.0));
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_ratio_is_the_median_of_the_rounds_own_ratios() {
        let (mut ours, mut floor) = (Series::default(), Series::default());
        for (own, other) in [(50.0, 100.0), (90.0, 100.0), (10.0, 12.5)] {
            ours.add(own, [1.0]);
            floor.add(other, [1.0]);
        }
        let idle = IdleGate::new(Duration::ZERO, Duration::ZERO);
        let found = Found {
            scenario: "s",
            goal: 0.7,
            unit: "things",
            ours: &ours,
            floor: &floor,
            idle: &idle,
            more: json!({"more": 1}),
        };
        let line = found.line();
        assert_eq!((&line["ratio"], &line["more"]), (&json!(0.8), &json!(1)));
        assert_eq!(line["ratios"], json!([0.5, 0.9, 0.8]));
    }
}
