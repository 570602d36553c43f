//! The demo as it is told: each step with what it verified and how long it took.

use super::super::failure::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// Steps and figures so far.
#[derive(Default)]
pub(super) struct Story {
    /// One object per step.
    pub(super) steps: Vec<Value>,
    /// Figures as they were measured.
    pub(super) figures: Map<String, Value>,
    failed: usize,
}

impl Story {
    /// Runs a step that others build on. What it gives is a value for later steps and a sentence on what was verified.
    ///
    /// # Errors
    /// The step's own; it is recorded.
    pub(super) async fn step<T>(
        &mut self,
        title: &str,
        work: impl Future<Output = Result<(T, String), Failure>>,
    ) -> Result<T, Failure> {
        let bar = ProgressBar::new_spinner().with_message(title.to_owned());
        // The template is a constant that indicatif accepts; its own default serves, too.
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        let start = Instant::now();
        let result = work.await;
        let seconds = start.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let (verified, detail) = match &result {
            Ok((_, detail)) => (true, detail.clone()),
            Err(failure) => (false, failure.text.clone()),
        };
        eprintln!("{} {title}: {detail} ({seconds:.1} s)", if verified { "✔" } else { "✘" });
        self.failed += usize::from(!verified);
        self.steps.push(json!({
            "step": title,
            "verified": verified,
            "detail": detail,
            "seconds": (seconds * 1_000.0).round() / 1_000.0,
        }));
        result.map(|(value, _)| value)
    }

    /// Runs a step that nothing builds on: after its failure the story goes on.
    pub(super) async fn check(&mut self, title: &str, work: impl Future<Output = Result<String, Failure>>) {
        // The failure is in the steps, and the exit code follows from them.
        let _ = self.step(title, async { work.await.map(|detail| ((), detail)) }).await;
    }

    /// Whether every step so far was verified.
    pub(super) fn verified(&self) -> bool {
        self.failed == 0 && !self.steps.is_empty()
    }
}

/// A [`Failure`] unless `condition` holds.
pub(super) fn ensure(condition: bool, problem: impl FnOnce() -> String) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(Failure::failed(problem())) }
}
