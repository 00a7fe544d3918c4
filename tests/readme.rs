//! The README and the guide in two languages: what does not depend on the language is the same in both.

/// Each page in English and in Chinese, and how it begins: with a link to the other.
const PAGES: [[&str; 4]; 2] = [
    [
        include_str!("../README.md"),
        include_str!("../README.zh-CN.md"),
        "[中文说明](README.zh-CN.md)\n",
        "[English](README.md)\n",
    ],
    [
        include_str!("../docs/guide.md"),
        include_str!("../docs/guide.zh-CN.md"),
        "[中文](guide.zh-CN.md)\n",
        "[English](guide.md)\n",
    ],
];

/// What a text has besides its words.
#[derive(Debug, Default, PartialEq)]
struct Shape {
    /// The lines of all code blocks with their fences, without comments.
    code: Vec<String>,
    /// The level of each heading.
    headings: Vec<usize>,
    /// The cells of each row of a table.
    rows: Vec<usize>,
    /// Where links and pictures lead, to a page of whatever language; another language may name them
    /// in another order.
    links: Vec<String>,
}

impl Shape {
    fn of(text: &str) -> Self {
        let mut shape = Self::default();
        let mut block = None;
        for line in text.lines() {
            let bare = line.trim();
            if let Some(language) = bare.strip_prefix("```") {
                shape.code.push(bare.into());
                block = if block.is_some() { None } else { Some(language) };
            } else if let Some(language) = block {
                shape.code.push(uncommented(line, language).into());
            } else {
                if bare.starts_with('#') {
                    shape.headings.push(bare.chars().take_while(|c| *c == '#').count());
                } else if bare.starts_with('|') {
                    shape.rows.push(bare.matches('|').count() - 1);
                }
                let targets = bare.split("](").skip(1);
                let page = |t: &str| t.split([')', '#']).next().unwrap().replace(".zh-CN", "");
                shape.links.extend(targets.map(page));
            }
        }
        assert_eq!(block, None, "a code block has no end");
        shape.links.sort();
        shape
    }
}

/// A line of a code block without its comment: from a `#` outside of quotes on, and in a drawing,
/// which is a block of no language, what follows its arrow.
fn uncommented<'a>(line: &'a str, language: &str) -> &'a str {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '▶') if language.is_empty() => return &line[..at],
            (None, '#') => return line[..at].trim_end(),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
    }
    line.trim_end()
}

#[test]
fn both_languages_have_the_same_code_headings_rows_and_links() {
    for [english, chinese, to_chinese, to_english] in PAGES {
        let english = Shape::of(english.strip_prefix(to_chinese).expect("its link"));
        let chinese = Shape::of(chinese.strip_prefix(to_english).expect("its link"));
        for (i, (a, b)) in english.code.iter().zip(&chinese.code).enumerate() {
            assert_eq!(a, b, "line {} of the code, the English and the Chinese", i + 1);
        }
        assert_eq!(english, chinese, "the English and the Chinese");
        assert!(english.code.len() > 40 && english.headings.len() > 5, "{english:?}");
        assert!(english.rows.len() > 8, "{english:?}");
    }
}

#[test]
fn a_change_to_one_of_them_is_seen() {
    let text = "# A\n\n```\nx ── y ─▶ there\n```\n\nSee [b](docs/b.md).\n\n| c | d |\n| --- | --- |\n\n\
                - e\n\n  ```sh\n  run --hash '#1' \"#2\"  # what for\n  ```\n";
    let shape = Shape::of(text);
    for (from, to) in [
        ("# A", "# 甲"),
        ("there", "那里"),
        ("See [b]", "见 [乙]"),
        ("| c |", "| 丙 |"),
        ("  # what for", " # 做什么用"),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(Shape::of(&text.replace(from, to)), shape, "{from}: words only");
    }
    for (from, to) in [
        ("# A", "## A"),
        ("# A\n", "# A\n\n## B\n"),
        ("y ─▶", "z ─▶"),
        ("docs/b.md", "docs/c.md"),
        ("[b](docs/b.md)", "b"),
        ("| c | d |\n", ""),
        ("| c | d |", "| c |"),
        ("```sh", "```toml"),
        ("--hash", "--mash"),
        ("'#1'", "'#3'"),
        ("\"#2\"", "\"#3\""),
        ("run", "# run"),
    ] {
        assert!(text.contains(from), "{from}");
        assert_ne!(Shape::of(&text.replace(from, to)), shape, "{from} made {to:?}");
    }
}
