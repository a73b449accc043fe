//! The values of `--output`.

use clap::ValueEnum;

/// For commands whose result is not described by manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Human-readable text
    Text,
    /// JSON
    Json,
}

/// For one resource that manifests describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetFormat {
    /// Human-readable text
    Text,
    /// JSON
    Json,
    /// A manifest for `otherix create -f`
    Yaml,
}

/// For a list of resources that manifests describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    /// Human-readable table
    Table,
    /// JSON
    Json,
    /// Manifests for `otherix create -f`
    Yaml,
    /// One name per line
    Name,
}

/// For a list of other resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlainListFormat {
    /// Human-readable table
    Table,
    /// JSON
    Json,
    /// One name per line
    Name,
}

impl From<Format> for GetFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Self::Text,
            Format::Json => Self::Json,
        }
    }
}

impl From<PlainListFormat> for ListFormat {
    fn from(format: PlainListFormat) -> Self {
        match format {
            PlainListFormat::Table => Self::Table,
            PlainListFormat::Json => Self::Json,
            PlainListFormat::Name => Self::Name,
        }
    }
}
