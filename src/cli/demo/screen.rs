//! The demo on a terminal: everything at once on 80 columns and 24 rows, without colour.
//!
//! Draws what `show` says; the terminal is put back whatever ends it.

use super::super::text::{WIDTH, short};
use super::show::{Show, clock, rows};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line as Text;
use ratatui::widgets::{Paragraph, Row, Table, Wrap};
use ratatui::{DefaultTerminal, Frame};
use std::mem::ManuallyDrop;
use std::time::Duration;

pub(super) enum Pressed {
    Quit,
    Kill,
}

/// The terminal in our hands; put back when dropped. A panic puts it back before it says why.
pub(super) struct Screen {
    /// Its own drop says on stderr what it could not do, which panics where that terminal is gone.
    terminal: ManuallyDrop<DefaultTerminal>,
}

impl Screen {
    pub(super) fn open() -> std::io::Result<Screen> {
        Ok(Screen { terminal: ManuallyDrop::new(ratatui::try_init()?) })
    }

    pub(super) fn draw(&mut self, show: &Show, now: Duration) -> std::io::Result<()> {
        self.terminal.draw(|frame| draw(frame, show, now)).map(|_| ())
    }

    /// What was pressed since it was asked last. Does not wait.
    pub(super) fn pressed(&self) -> std::io::Result<Option<Pressed>> {
        while event::poll(Duration::ZERO)? {
            let Event::Key(key) = event::read()? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(Some(Pressed::Quit)),
                // The terminal is raw: this is no signal.
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                    return Ok(Some(Pressed::Quit));
                }
                KeyCode::Char('k') => return Ok(Some(Pressed::Kill)),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _: std::io::Result<()> = self.terminal.show_cursor();
        let _: std::io::Result<()> = ratatui::try_restore();
    }
}

fn draw(frame: &mut Frame, show: &Show, now: Duration) {
    let kinds = show.kind_rows();
    let models = show.model_rows();
    // A head and a line for each row; the events take what is left.
    let height = |rows: usize| Constraint::Length(u16::try_from(rows + 2).unwrap_or(u16::MAX));
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Length(4),
        height(kinds.len()),
        height(models.len()),
        Constraint::Min(3),
        Constraint::Length(1),
    ])
    .split(frame.area());
    let strong = Style::default().add_modifier(Modifier::BOLD);
    frame.render_widget(head(now), areas[0]);
    frame.render_widget(Paragraph::new(show.sentence()).style(strong).wrap(Wrap { trim: true }), areas[1]);
    frame.render_widget(Paragraph::new(show.sum_lines().map(Text::from).to_vec()), areas[2]);
    frame.render_widget(table(rows::KIND_HEAD, kinds, [8, 7, 9, 22, 14, 11]), areas[3]);
    frame.render_widget(table(rows::MODEL_HEAD, models, [13, 18, 8, 8, 13]), areas[4]);
    let room = usize::from(areas[5].height);
    let width = usize::from(areas[5].width).max(WIDTH);
    let from = show.lines.len().saturating_sub(room);
    let last: Vec<Text> = show.lines.iter().skip(from).map(|l| Text::from(short(&l.text(), width))).collect();
    frame.render_widget(Paragraph::new(last), areas[5]);
    frame.render_widget(Paragraph::new(format!("try: {}", show.next())), areas[6]);
}

fn head(now: Duration) -> Paragraph<'static> {
    let left = format!("tidegate demo  {}", clock(now));
    let keys = "k kills the worker (kill -9)  q quits";
    Paragraph::new(format!("{left}{keys:>w$}", w = WIDTH.saturating_sub(left.len())))
}

/// Columns of fixed width, figures to the right.
fn table<const N: usize>(
    head: [&'static str; N],
    rows: Vec<[String; N]>,
    widths: [u16; N],
) -> Table<'static> {
    let cell = move |(i, text): (usize, String)| {
        let w = usize::from(widths[i]);
        if i == 0 { format!("{text:<w$}") } else { format!("{text:>w$}") }
    };
    let row = |cells: [String; N]| Row::new(cells.into_iter().enumerate().map(cell).collect::<Vec<_>>());
    let bold = Style::default().add_modifier(Modifier::BOLD);
    let widths = widths.map(Constraint::Length);
    Table::new(rows.into_iter().map(row), widths)
        .header(row(head.map(str::to_owned)).style(bold))
        .column_spacing(0)
}
