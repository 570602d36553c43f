//! What a command prints on standard output: a table for people, or JSON with stable names, one object per line.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// Columns of a table that goes to no terminal.
const WIDTH: u16 = 140;

/// `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The flag that every command takes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct OutputArgs {
    /// How to print the result [default: table on a terminal, else json]
    #[arg(long, value_name = "FORMAT", global = true)]
    output: Option<Format>,
}

impl OutputArgs {
    /// The format in effect.
    pub fn format(self) -> Format {
        self.output.unwrap_or(if std::io::stdout().is_terminal() { Format::Table } else { Format::Json })
    }

    /// Prints a list: in a table the named fields only, in JSON every field.
    pub fn list(self, columns: &[&str], objects: &[Value]) {
        match self.format() {
            Format::Json => objects.iter().for_each(|object| line(&object.to_string())),
            Format::Table => {
                let mut table = new_table();
                table.set_header(columns.iter().map(|name| name.replace('_', " ").to_uppercase()));
                for object in objects {
                    table.add_row(columns.iter().map(|name| cell(object.get(name))));
                }
                line(&table.to_string());
            }
        }
    }

    /// Prints one object: in a table one line per field.
    pub fn object(self, object: &Value) {
        match (self.format(), object) {
            (Format::Table, Value::Object(fields)) => {
                let mut table = new_table();
                for (name, value) in fields {
                    table.add_row([name.replace('_', " "), cell(Some(value))]);
                }
                line(&table.to_string());
            }
            _ => line(&object.to_string()),
        }
    }
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_width(WIDTH);
    }
    table
}

/// One line on standard output. A reader that went away (`| head`) is no fault of ours.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join("\n"),
        Some(Value::Object(fields)) => {
            let pairs = fields.iter().map(|(name, value)| format!("{name}={}", cell(Some(value))));
            pairs.collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    }
}
