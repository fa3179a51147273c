//! Questions and answers on a mirrored image.

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
