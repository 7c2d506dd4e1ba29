//! The form of a sheet: its seven parts, its questions, and the commands in it, exactly as a student types them.
//!
//! A block fenced as `console` is a session. `$ ` begins a command of the student's own shell, `# ` one of a root shell that
//! the command before it opened (`isobench testbed enter`), and `> ` goes on with the line before. What follows is what is
//! printed: `...` stands for any text within a line, and alone in a line for any lines. Where nothing is printed there,
//! nothing is said about the output. Fenced as `console kvm`, it needs a /dev/kvm that the student may open.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Parser, Tag, TagEnd};

/// A sheet, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    /// Its title.
    pub title: String,
    /// Its parts.
    pub parts: Vec<Part>,
}

/// One part of a sheet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Its heading.
    pub heading: String,
    /// Items of its numbered lists.
    pub questions: usize,
    /// Its commands, in order.
    pub commands: Vec<Command>,
    /// Text outside of sessions, without marks.
    pub text: String,
}

/// One command of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Whose shell it is typed into.
    pub shell: Shell,
    /// Whether it needs a /dev/kvm that the student may open.
    pub needs_kvm: bool,
    /// The command; it may have several lines.
    pub text: String,
    /// The lines that it prints, with `...` for what differs; nothing is said where there are none.
    pub printed: Vec<String>,
}

/// A shell that a command is typed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// The student's own.
    Own,
    /// The one that the last command of the own shell opened.
    Opened,
}

/// A sheet is not of the form.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SheetError {
    /// A session begins with something else than a command.
    #[error("a session begins with `{0}`, which is no command")]
    NoCommand(String),
    /// A part is numbered twice or the first heading is no title.
    #[error("`{0}` stands outside of a part")]
    OutsidePart(String),
}

/// Takes a sheet apart.
///
/// # Errors
/// Where a session or a heading is not of the form.
pub fn parse(text: &str) -> Result<Sheet, SheetError> {
    let mut sheet = Sheet::default();
    let mut heading: Option<(HeadingLevel, String)> = None;
    // What is typed, and whether it needs a /dev/kvm.
    let mut session: Option<(String, bool)> = None;
    let mut ordered: Vec<bool> = Vec::new();
    for event in Parser::new(text) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
            Event::End(TagEnd::Heading(_)) => match heading.take() {
                Some((HeadingLevel::H1, title)) if sheet.title.is_empty() => sheet.title = title,
                Some((HeadingLevel::H2, heading)) => sheet.parts.push(Part { heading, ..Part::default() }),
                Some((_, heading)) => return Err(SheetError::OutsidePart(heading)),
                None => {}
            },
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(kind)))
                if matches!(&*kind, "console" | "console kvm") =>
            {
                session = Some((String::new(), &*kind == "console kvm"));
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Some((session, needs_kvm)) = session.take() {
                    part(&mut sheet, &session)?.commands.extend(commands(&session, needs_kvm)?);
                }
            }
            Event::Start(Tag::List(first)) => ordered.push(first.is_some()),
            Event::End(TagEnd::List(_)) => drop(ordered.pop()),
            Event::Start(Tag::Item) if ordered == [true] => part(&mut sheet, "1.")?.questions += 1,
            Event::Text(text) | Event::Code(text) => match (&mut heading, &mut session) {
                (Some((_, heading)), _) => heading.push_str(&text),
                (None, Some((session, _))) => session.push_str(&text),
                (None, None) => part(&mut sheet, &text)?.text.push_str(&text),
            },
            Event::SoftBreak | Event::HardBreak => {
                if let Some(part) = sheet.parts.last_mut() {
                    part.text.push(' ');
                }
            }
            _ => {}
        }
    }
    Ok(sheet)
}

fn part<'a>(sheet: &'a mut Sheet, text: &str) -> Result<&'a mut Part, SheetError> {
    sheet.parts.last_mut().ok_or_else(|| SheetError::OutsidePart(text.to_owned()))
}

fn commands(session: &str, needs_kvm: bool) -> Result<Vec<Command>, SheetError> {
    let mut commands: Vec<Command> = Vec::new();
    for line in session.lines() {
        let begins = [("$ ", Shell::Own), ("# ", Shell::Opened)];
        if let Some((shell, text)) =
            begins.iter().find_map(|(prompt, shell)| Some((*shell, line.strip_prefix(prompt)?)))
        {
            commands.push(Command { shell, needs_kvm, text: text.to_owned(), printed: Vec::new() });
            continue;
        }
        let command = commands.last_mut().ok_or_else(|| SheetError::NoCommand(line.to_owned()))?;
        match line.strip_prefix("> ") {
            Some(more) if command.printed.is_empty() => command.text.push_str(&format!("\n{more}")),
            _ => command.printed.push(line.to_owned()),
        }
    }
    Ok(commands)
}

impl Sheet {
    /// Every command, in order.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.parts.iter().flat_map(|part| &part.commands)
    }
}

/// Whether what was printed is what a sheet says: line by line, with `...` for any text, and for any lines where it stands
/// alone.
pub fn is_printed(expected: &[String], printed: &[&str]) -> bool {
    match expected {
        [] => printed.is_empty(),
        [first, rest @ ..] if first == "..." => {
            (0..=printed.len()).any(|skipped| is_printed(rest, &printed[skipped..]))
        }
        [first, rest @ ..] => match printed {
            [line, lines @ ..] => is_line(first, line) && is_printed(rest, lines),
            [] => false,
        },
    }
}

fn is_line(expected: &str, line: &str) -> bool {
    let line = line.trim_end();
    match expected.trim_end().split_once("...") {
        None => expected.trim_end() == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| is_line(after, &rest[at..]))
        }),
    }
}
