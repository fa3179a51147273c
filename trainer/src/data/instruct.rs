//! Instruction samples of the nine tasks, in files with one JSON object per line.

use anatomix_phantom::tasks::Sample;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

#[derive(Deserialize)]
struct Line {
    image: String,
    #[serde(flatten)]
    sample: Sample,
}

/// Reads the samples of each image, by the image's identifier.
///
/// # Errors
/// If the file cannot be read or a line is malformed; the message names the file and the line.
pub fn read(path: &Path) -> Result<HashMap<String, Vec<Sample>>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut out: HashMap<String, Vec<Sample>> = HashMap::new();
    for (number, line) in BufReader::new(file).lines().enumerate() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        let line: Line = serde_json::from_str(&line).with_context(|| format!("{} line {}", path.display(), number + 1))?;
        out.entry(line.image).or_default().push(line.sample);
    }
    Ok(out)
}

/// Mirrors the boxes in a text: `(x0,y0),(x1,y1)` on the prompt's grid becomes `(1024-x1,y0),(1024-x0,y1)`.
pub fn mirror_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("<box>") {
        let (before, tail) = rest.split_at(start + 5);
        out.push_str(before);
        let Some(end) = tail.find("</box>") else { break };
        let numbers: Vec<u32> = tail[..end].split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        match numbers[..] {
            [x0, y0, x1, y1] => out.push_str(&format!("({},{y0}),({},{y1})", 1024 - x1.min(1024), 1024 - x0.min(1024))),
            _ => out.push_str(&tail[..end]),
        }
        rest = &tail[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn mirroring_twice_changes_nothing() {
        let text = "<ref>a (b)</ref><box>(100,20),(300,400)</box> and <box>(0,1),(1024,2)</box>.";
        let once = super::mirror_text(text);
        assert_eq!(once, "<ref>a (b)</ref><box>(724,20),(924,400)</box> and <box>(0,1),(1024,2)</box>.");
        assert_eq!(super::mirror_text(&once), text);
    }
}
