//! Logs on stderr: as text, or one JSON object a line.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line with the time, the level, the module, a message and fields
    #[default]
    Text,
    /// A JSON object a line
    Json,
}

/// How a program logs.
#[derive(Clone, Copy, Debug, Args)]
pub struct LogArgs {
    /// The form of the log on stderr
    #[arg(long, value_enum, default_value_t, global = true, env = "OTHERIX_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

impl LogArgs {
    /// Begins to log at the levels that `OTHERIX_LOG` sets, or `default`. To be called once.
    pub fn start(self, default: &str) {
        let filter = EnvFilter::try_from_env("OTHERIX_LOG").unwrap_or_else(|_| EnvFilter::new(default));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
        // It would tell of lines that cannot be written, on stderr, and panic because that cannot be written to.
        let log = log.log_internal_errors(false);
        match self.log_format {
            LogFormat::Text => log.init(),
            LogFormat::Json => log.json().flatten_event(true).init(),
        }
    }
}
