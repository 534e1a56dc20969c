//! Breadth-first search over all reachable states, then backward from the good ends.
//! Stops at the first broken check, so a counterexample is as short as it can be.

use super::checks::{self, Broken};
use super::configurations::Config;
use super::state::*;
use super::steps::{self, Label, Next};
use std::hash::{Hash, Hasher};

pub(crate) struct Found {
    pub(crate) broken: Broken,
    pub(crate) path: Vec<(Label, bool)>,
    /// For a dead end: what happens next without faults, as far as it goes.
    pub(crate) tail: Vec<(Label, bool)>,
}

pub(crate) struct Report {
    pub(crate) states: usize,
    pub(crate) good_ends: usize,
    pub(crate) finished: bool,
    pub(crate) found: Option<Found>,
    /// How often a second outcome was reached under a stated limit, by its history.
    pub(crate) excused: Vec<(History, usize)>,
}

pub(crate) fn search(config: &Config, states_max: usize) -> Report {
    let mut graph = Graph::default();
    graph.visit(config.first(), NO_PARENT);
    let mut report = Report { states: 0, good_ends: 0, finished: true, found: None, excused: vec![] };
    let mut out: Vec<Next> = Vec::new();
    let mut at = 0;
    while at < graph.states.len() {
        let state = graph.states.get(at);
        note_excused(&mut report, &state);
        steps::successors(&state, config, &mut out);
        for next in &out {
            if let Some(broken) = next.broken.filter(|b| config.only.is_none_or(|o| o == *b)) {
                let mut path = graph.path(at, config);
                path.push((next.label, next.fault));
                report.found = Some(Found { broken, path, tail: vec![] });
                report.states = graph.states.len();
                return report;
            }
            let to = graph.visit(next.state, at as u32);
            if !next.fault && to != at as u32 {
                graph.edges.push((at as u32, to));
            }
        }
        at += 1;
        if graph.states.len() > states_max {
            report.finished = false;
            break;
        }
    }
    report.states = graph.states.len();
    if report.finished {
        report.found = dead_end(&graph, config, &mut report.good_ends);
    }
    report
}

fn note_excused(report: &mut Report, s: &State) {
    if s.outcomes.iter().all(|g| g[0] + g[1] < 2) {
        return;
    }
    let h =
        History { crashed: false, cut: false, outage: false, deployed: false, revoked: false, ..s.history };
    match report.excused.iter_mut().find(|(k, _)| *k == h) {
        Some((_, n)) => *n += 1,
        None => report.excused.push((h, 1)),
    }
}

/// The first state from which no fault-free path leads to a good end.
fn dead_end(graph: &Graph, config: &Config, good_ends: &mut usize) -> Option<Found> {
    let n = graph.states.len();
    let mut first = vec![0u32; n + 1];
    for &(_, to) in &graph.edges {
        first[to as usize + 1] += 1;
    }
    for i in 0..n {
        first[i + 1] += first[i];
    }
    let mut fill = first.clone();
    let mut before = vec![0u32; graph.edges.len()];
    for &(from, to) in &graph.edges {
        before[fill[to as usize] as usize] = from;
        fill[to as usize] += 1;
    }
    let mut fine = vec![false; n];
    let mut todo: Vec<u32> =
        (0..n).filter(|&i| checks::is_good_end(&graph.states.get(i))).map(|i| i as u32).collect();
    *good_ends = todo.len();
    for &i in &todo {
        fine[i as usize] = true;
    }
    while let Some(i) = todo.pop() {
        for &b in &before[first[i as usize] as usize..first[i as usize + 1] as usize] {
            if !fine[b as usize] {
                fine[b as usize] = true;
                todo.push(b);
            }
        }
    }
    let lost = fine.iter().position(|f| !f)?;
    let mut tail = vec![];
    let mut state = graph.states.get(lost);
    let mut seen = vec![state];
    let mut out = Vec::new();
    loop {
        steps::successors(&state, config, &mut out);
        let Some(next) = out.iter().find(|n| !n.fault && !seen.contains(&n.state)) else { break };
        tail.push((next.label, false));
        state = next.state;
        seen.push(state);
    }
    Some(Found { broken: Broken::DeadEnd, path: graph.path(lost, config), tail })
}

const NO_PARENT: u32 = u32::MAX;
const CHUNK: usize = 1 << 16;

/// States in chunks: growing never copies what is there.
#[derive(Default)]
struct Chunks {
    chunks: Vec<Vec<State>>,
}

impl Chunks {
    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * CHUNK + last.len())
    }

    fn get(&self, i: usize) -> State {
        self.chunks[i / CHUNK][i % CHUNK]
    }

    fn push(&mut self, s: State) {
        if self.chunks.last().is_none_or(|c| c.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks.last_mut().expect("just made").push(s);
    }
}

#[derive(Default)]
struct Graph {
    states: Chunks,
    parents: Vec<u32>,
    edges: Vec<(u32, u32)>,
    /// Open addressing; 0 is empty, else index + 1.
    table: Vec<u32>,
}

impl Graph {
    fn visit(&mut self, s: State, parent: u32) -> u32 {
        if (self.states.len() + 1) * 2 > self.table.len() {
            self.grow();
        }
        let mask = self.table.len() - 1;
        let mut slot = hash(&s) as usize & mask;
        while self.table[slot] != 0 {
            let i = self.table[slot] - 1;
            if self.states.get(i as usize) == s {
                return i;
            }
            slot = (slot + 1) & mask;
        }
        let i = self.states.len() as u32;
        self.table[slot] = i + 1;
        self.states.push(s);
        self.parents.push(parent);
        i
    }

    fn grow(&mut self) {
        let size = (self.table.len() * 2).max(1 << 12);
        self.table = vec![0; size];
        for i in 0..self.states.len() {
            let mut slot = hash(&self.states.get(i)) as usize & (size - 1);
            while self.table[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            self.table[slot] = i as u32 + 1;
        }
    }

    fn path(&self, to: usize, config: &Config) -> Vec<(Label, bool)> {
        let mut chain = vec![to];
        while self.parents[chain[chain.len() - 1]] != NO_PARENT {
            chain.push(self.parents[chain[chain.len() - 1]] as usize);
        }
        chain.reverse();
        let mut out = Vec::new();
        chain
            .windows(2)
            .map(|w| {
                steps::successors(&self.states.get(w[0]), config, &mut out);
                let wanted = self.states.get(w[1]);
                let step = out.iter().find(|n| n.state == wanted).expect("a step led here");
                (step.label, step.fault)
            })
            .collect()
    }
}

fn hash(s: &State) -> u64 {
    let mut h = Mix(0);
    s.hash(&mut h);
    h.0 ^ (h.0 >> 29)
}

struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u8(b));
    }

    fn write_u8(&mut self, b: u8) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(b)).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u8(n as u8);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u8(n as u8);
    }
}
