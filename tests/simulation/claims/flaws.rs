//! The switches: every known way to get the protocol wrong, each by name.
//!
//! The product has none of them. Those that live in the ledger's rules are put around the product's
//! functions in `ledger/`; the others are steps of a worker, an arbiter or time that go wrong.

macro_rules! flaws {
    ($($name:ident = $shown_in:literal, $text:literal;)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Flaw { $(#[doc = $text] $name,)* }
        impl Flaw {
            /// The switch, its name, the configuration that shows it best, what it does.
            pub(crate) const ALL: &'static [(Flaw, &'static str, &'static str, &'static str)] =
                &[$((Flaw::$name, stringify!($name), $shown_in, $text),)*];
        }
    };
}

flaws! {
    // Bugs of earlier versions, planted to show that the checker finds things.
    SweepsMovedOrigins = "one-park", "a sweep dead-letters an open claim whose origin is complete (parked or in review)";
    RunningAtOnClaim = "one-park", "'running at' lives on the claim, not on a started slot";
    TakesOverAtAnyHop = "amnesia-park", "a token that came back takes over although its chain has moved on";
    ClosedWithoutPrint = "conflict-small", "a closed entry keeps no fingerprint";
    RedriveNeedsClosed = "redrive-small", "generation n + 1 waits for the closing of n, proof or not";
    FenceCounts = "forget-effect-small", "the fence is a counter that starts again when the entry is created again";
    OutageLooksLikeDeath = "outage-small", "a lapse is judged without unbroken contact to the ledger";
    RefusalForgetsClaim = "poison-small", "a refused record is buried without a look at its claim";
    ClosesBeforeVisible = "one-crash", "the claim is closed when the commit is handed in";
    MarksReopen = "one-park", "a moved or waiting mark is applied whatever the entry says";
    EffectInOutage = "effect-outage", "an effect starts while the ledger cannot be reached";
    RepeatsUnknownEffect = "effect-small", "an effect whose outcome is unknown is run again without a look";
    // Faults of the protocol as written.
    StaleMeansSilent = "one-move", "whoever is told that its fence is stale completes its token silently";
    OwnInstanceIsMe = "one-move", "a slot started by another delivery in my own process counts as mine";
    ReleaseByFence = "one-move", "release needs the current fence";
    ParkKeepsSlot = "one-park", "a park leaves the slot started although no request was sent";
    UntilWithoutContact = "outage-small", "'until' is believed without unbroken contact, and has no slack";
    SendsAfterUntil = "outage-small", "a request that was granted is still sent after its 'until'";
    RedriveReplacesStrangers = "amnesia-redrive", "a redrive replaces an open entry with another fingerprint";
    LeavesWithAnswer = "outage-small", "a task parks with an answer that is not stored";
    RefusalKnowsOnlyOrigins = "poison-small", "a refused record belongs to a chain only if it is the origin, at any hop";
    RefusalLeavesNoTrace = "poison-small", "a refusal before the claim leaves nothing in the ledger";
    OneRefusalPerKey = "poison-redrive", "a key remembers only its last refused origin";
    OldGenerationSwallowsConflict = "conflict-small", "a record of an older generation is silent whatever its fingerprint";
    OtherRuleSwallowsConflict = "deploy-small", "fingerprints made by different rules count as equal";
    AsksBeforeLeaseConfirmed = "forget-copies", "after the ledger was lost and found, a lease is used without being confirmed by the log";
    MarksCarryNoPrint = "forget-conflict-small", "close and moved create entries without a fingerprint";
    TokensDropProof = "forget-redrive-small", "only the redriven record itself carries the proof";
    EndsPastEffect = "effect-review-small", "a task ends or asks a person while another delivery may still run its effect";
    UnknownKeepsOwner = "effect-outage", "whoever is told Unknown does not become the owner of the slot";
    MovedKeepsFence = "effect-review-small", "moved leaves the fence as it is";
    MarksNeverGiveUp = "amnesia-redrive", "a mark is still retried after the dedupe window";
    DecisionJudgedTwice = "revoked-small", "a decision that has claimed can still be refused as invalid";
    OvertakenItemsStay = "review-overtaken", "a decision that comes too late for the task leaves the item open";
    StoresIntoAnyChain = "late-answer", "a late answer is stored whichever chain the entry is of by then";
    BarsForEver = "effect-review-small", "what was barred stays barred after a person has let the task go on";
    ReviewHasOwnClaim = "review-expiry", "the claim of a review item is an entry of its own, which expires by itself";
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rules(u64);

impl Rules {
    pub(crate) const REPAIRED: Rules = Rules(0);

    pub(crate) const fn with(self, flaw: Flaw) -> Rules {
        Rules(self.0 | 1 << flaw as u64)
    }

    pub(crate) const fn has(self, flaw: Flaw) -> bool {
        self.0 & 1 << flaw as u64 != 0
    }
}
