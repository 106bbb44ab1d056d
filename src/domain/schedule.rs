//! Which endpoints are due now. A single-level timing wheel of one bucket a millisecond: since no interval is longer
//! than 300 s, a wheel of 2^19 ms always holds each endpoint's next tick, with no cascade and no heap.
//!
//! Per endpoint 24 to 30 bytes of wheel (see `Slot`) and 6 to 12 of index; per wheel 2 MiB of bucket heads and 64 KiB of
//! bitmap. `heap_bytes` adds up what there is.

use hashbrown::HashTable;

use super::endpoint::{EndpointId, Interval};
use super::grid::Grid;
use super::timestamp::Timestamp;

/// Buckets of the wheel, in milliseconds: a power of two above the longest interval.
const WHEEL_MS: i64 = 1 << 19;
const NONE: u32 = u32::MAX;
/// From so many slots on, room grows by a quarter at a time: twice as much would lie idle in the worst case.
const DOUBLED_MAX: usize = 1 << 16;

/// A tick that has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// Whose.
    pub endpoint: EndpointId,
    /// The grid point, exact.
    pub scheduled_at: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    id: EndpointId,
    grid: Grid,
    /// The next slot in the same bucket, or in the list of free slots.
    next: u32,
    /// The bucket it stands in: its next tick modulo the wheel.
    bucket: u32,
}

/// The due ticks of a changing set of endpoints, in order of time.
#[derive(Debug)]
pub struct Schedule {
    heads: Vec<u32>,
    occupied: Vec<u64>,
    slots: Vec<Slot>,
    free: u32,
    /// Slots by their endpoint's id, which stands in the slot: a map would keep it twice.
    slot_of: HashTable<u32>,
    /// Every bucket before this millisecond has been emptied.
    cursor_ms: i64,
}

impl Schedule {
    /// An empty schedule whose first tick is at or after `start`.
    pub fn new(start: Timestamp) -> Self {
        Self {
            heads: vec![NONE; WHEEL_MS as usize],
            occupied: vec![0; WHEEL_MS as usize / 64],
            slots: Vec::new(),
            free: NONE,
            slot_of: HashTable::new(),
            cursor_ms: start.as_millis(),
        }
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.slot_of.len()
    }

    /// Whether there are no endpoints.
    pub fn is_empty(&self) -> bool {
        self.slot_of.is_empty()
    }

    /// Adds an endpoint, or gives it another interval. Its first tick is the first of its grid at or after `now`.
    /// An endpoint whose interval is unchanged keeps its place.
    pub fn upsert(&mut self, id: EndpointId, interval: Interval, now: Timestamp) {
        let grid = Grid::new(id, interval);
        if let Some(slot) = self.slot_of(id) {
            if self.slots[slot as usize].grid == grid {
                return;
            }
            self.unlink(slot);
            self.slots[slot as usize].grid = grid;
            self.link(slot, now);
            return;
        }
        let slot = Slot {
            id,
            grid,
            next: NONE,
            bucket: 0,
        };
        let index = if self.free == NONE {
            if self.slots.len() == self.slots.capacity() && self.slots.len() >= DOUBLED_MAX {
                self.slots.reserve_exact(self.slots.len() / 4);
            }
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        } else {
            let index = self.free;
            self.free = self.slots[index as usize].next;
            self.slots[index as usize] = slot;
            index
        };
        let slots = &self.slots;
        self.slot_of
            .insert_unique(hash(id), index, |&slot| hash(slots[slot as usize].id));
        self.link(index, now);
    }

    /// Removes an endpoint; unknown ones are ignored.
    pub fn remove(&mut self, id: EndpointId) {
        let is_its = |slot: &u32| self.slots[*slot as usize].id == id;
        if let Ok(entry) = self.slot_of.find_entry(hash(id), is_its) {
            let (slot, _) = entry.remove();
            self.unlink(slot);
            self.slots[slot as usize].next = self.free;
            self.free = slot;
        }
    }

    /// Takes up to `limit` due ticks at or before `now`, oldest first, into `due`. Each endpoint taken is put at its
    /// next tick. Returns whether more may be due.
    pub fn take_due(&mut self, now: Timestamp, limit: usize, due: &mut Vec<Due>) -> bool {
        let now_ms = now.as_millis();
        let mut left = limit;
        while let Some(tick_ms) = self.next_occupied(now_ms) {
            self.cursor_ms = tick_ms;
            loop {
                let index = self.heads[bucket_of(tick_ms)];
                if index == NONE {
                    break;
                }
                if left == 0 {
                    return true;
                }
                left -= 1;
                let slot = self.slots[index as usize];
                self.pop_head(slot.bucket);
                due.push(Due {
                    endpoint: slot.id,
                    scheduled_at: Timestamp::from_millis(tick_ms),
                });
                self.place(index, tick_ms + i64::from(slot.grid.interval_ms()));
            }
        }
        self.cursor_ms = self.cursor_ms.max(now_ms + 1);
        false
    }

    /// The next tick, which may lie in the past when `take_due` stopped at its limit.
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.is_empty() {
            return None;
        }
        self.next_occupied(self.cursor_ms + WHEEL_MS - 1)
            .map(Timestamp::from_millis)
    }

    /// The ticks of one endpoint at or before `now` that were not taken, oldest first.
    pub fn waiting(
        &self,
        id: EndpointId,
        now: Timestamp,
    ) -> impl Iterator<Item = Timestamp> + use<> {
        let now_ms = now.as_millis();
        let ticks = self.slot_of(id).map(|index| {
            let Slot { grid, bucket, .. } = self.slots[index as usize];
            let from_cursor = i64::from(bucket) - bucket_of(self.cursor_ms) as i64;
            let next_ms = self.cursor_ms + from_cursor.rem_euclid(WHEEL_MS);
            (next_ms..=now_ms).step_by(grid.interval_ms() as usize)
        });
        ticks.into_iter().flatten().map(Timestamp::from_millis)
    }

    /// Leaves out every tick before `now`: after a pause or a forward step they lie in a gap, and are not caught up.
    pub fn jump(&mut self, now: Timestamp) {
        self.heads.fill(NONE);
        self.occupied.fill(0);
        self.cursor_ms = now.as_millis();
        let live: Vec<u32> = self.slot_of.iter().copied().collect();
        for slot in live {
            self.link(slot, now);
        }
    }

    /// What it holds of the heap.
    pub fn heap_bytes(&self) -> usize {
        self.heads.capacity() * size_of::<u32>()
            + self.occupied.capacity() * size_of::<u64>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.slot_of.allocation_size()
    }

    fn slot_of(&self, id: EndpointId) -> Option<u32> {
        let is_its = |slot: &u32| self.slots[*slot as usize].id == id;
        self.slot_of.find(hash(id), is_its).copied()
    }

    fn link(&mut self, index: u32, now: Timestamp) {
        // Never before the cursor: a tick there would have to wait for a turn of the wheel.
        let from = now.max(Timestamp::from_millis(self.cursor_ms));
        let tick_ms = self.slots[index as usize].grid.at_or_after(from);
        self.place(index, tick_ms);
    }

    fn place(&mut self, index: u32, tick_ms: i64) {
        let bucket = bucket_of(tick_ms);
        let slot = &mut self.slots[index as usize];
        slot.bucket = bucket as u32;
        slot.next = self.heads[bucket];
        self.heads[bucket] = index;
        self.occupied[bucket / 64] |= 1 << (bucket % 64);
    }

    fn pop_head(&mut self, bucket: u32) {
        let bucket = bucket as usize;
        let head = self.heads[bucket];
        self.heads[bucket] = self.slots[head as usize].next;
        if self.heads[bucket] == NONE {
            self.occupied[bucket / 64] &= !(1 << (bucket % 64));
        }
    }

    fn unlink(&mut self, index: u32) {
        let Slot { bucket, next, .. } = self.slots[index as usize];
        if self.heads[bucket as usize] == index {
            self.pop_head(bucket);
            return;
        }
        let mut before = self.heads[bucket as usize];
        while self.slots[before as usize].next != index {
            before = self.slots[before as usize].next;
        }
        self.slots[before as usize].next = next;
    }

    /// The first occupied millisecond from the cursor up to `last_ms`, found 64 buckets at a time.
    fn next_occupied(&self, last_ms: i64) -> Option<i64> {
        let mut at = self.cursor_ms;
        while at <= last_ms {
            let bucket = bucket_of(at);
            let word = self.occupied[bucket / 64] >> (bucket % 64);
            if word != 0 {
                let found = at + i64::from(word.trailing_zeros());
                return (found <= last_ms).then_some(found);
            }
            at += 64 - (bucket % 64) as i64;
        }
        None
    }
}

/// Both halves of the product: a share of the endpoints has equal low bits in all its ids.
const fn hash(id: EndpointId) -> u64 {
    let product = (id.0 as u64 as u128) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

const fn bucket_of(tick_ms: i64) -> usize {
    tick_ms.rem_euclid(WHEEL_MS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const START: Timestamp = Timestamp::from_millis(1_780_000_000_000);

    fn after(ms: i64) -> Timestamp {
        Timestamp::from_millis(START.as_millis() + ms)
    }

    fn seconds(s: i64) -> Interval {
        Interval::from_secs(s).unwrap()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Upsert(i64, i64),
        Remove(i64),
        Advance(i64, usize),
        Jump(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0i64..40, 5i64..=300).prop_map(|(id, s)| Step::Upsert(id, s)),
            1 => (0i64..40).prop_map(Step::Remove),
            6 => (0i64..20_000, 1usize..50).prop_map(|(ms, limit)| Step::Advance(ms, limit)),
            1 => (300_000i64..3_000_000).prop_map(Step::Jump),
        ];
        prop::collection::vec(step, 1..120)
    }

    proptest! {
        /// The wheel gives exactly what a plain map of next ticks gives.
        #[test]
        fn ticks_are_those_of_the_grid_in_order(steps in steps()) {
            let mut schedule = Schedule::new(START);
            let mut model: BTreeMap<i64, (Interval, i64)> = BTreeMap::new();
            let mut now = START;
            for step in steps {
                match step {
                    Step::Upsert(id, s) => {
                        schedule.upsert(EndpointId(id), seconds(s), now);
                        let floor = now.max(Timestamp::from_millis(schedule.cursor_ms));
                        let next = Grid::new(EndpointId(id), seconds(s)).at_or_after(floor);
                        let entry = model.entry(id).or_insert((seconds(s), next));
                        if entry.0 != seconds(s) {
                            *entry = (seconds(s), next);
                        }
                    }
                    Step::Remove(id) => {
                        schedule.remove(EndpointId(id));
                        model.remove(&id);
                    }
                    Step::Jump(ms) => {
                        now = now.plus(std::time::Duration::from_millis(ms as u64));
                        schedule.jump(now);
                        for (&id, (interval, next)) in &mut model {
                            *next = Grid::new(EndpointId(id), *interval).at_or_after(now);
                        }
                    }
                    Step::Advance(ms, limit) => {
                        now = now.plus(std::time::Duration::from_millis(ms as u64));
                        let mut got = Vec::new();
                        while schedule.take_due(now, limit, &mut got) {}
                        let mut expected = Vec::new();
                        while let Some((&id, &(interval, tick))) = model.iter().min_by_key(|(_, (_, t))| *t)
                            && tick <= now.as_millis()
                        {
                            expected.push((tick, id));
                            model.insert(id, (interval, tick + i64::from(interval.millis())));
                        }
                        let times: Vec<_> = got.iter().map(|d| d.scheduled_at).collect();
                        prop_assert!(times.is_sorted());
                        let mut got: Vec<_> = got.iter().map(|d| (d.scheduled_at.as_millis(), d.endpoint.0)).collect();
                        got.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(got, expected);
                    }
                }
                prop_assert_eq!(schedule.len(), model.len());
                let next = model.values().map(|v| v.1).min();
                prop_assert_eq!(schedule.next_due().map(Timestamp::as_millis), next);
            }
        }
    }

    #[test]
    fn an_endpoint_takes_no_more_than_64_bytes() {
        // A share of two, as it grows: just after each growth most of the room is idle.
        let mut schedule = Schedule::new(START);
        let mut at_most = 0.0_f64;
        for count in 1..=500_000 {
            schedule.upsert(EndpointId(2 * count), seconds(60 + count % 241), START);
            if count >= 100_000 && count % 100 == 0 {
                at_most = at_most.max(schedule.heap_bytes() as f64 / count as f64);
            }
        }
        let full = schedule.heap_bytes() as f64 / 500_000.0;
        assert!(at_most <= 64.0 && full <= 48.0, "{at_most} {full}");
    }

    #[test]
    fn what_waits_of_one_endpoint_is_known_until_it_is_taken() {
        let mut schedule = Schedule::new(START);
        for id in 0..100 {
            schedule.upsert(EndpointId(id), seconds(5), START);
        }
        let now = after(12_345);
        let mut due = Vec::new();
        let mut more = true;
        while more {
            let waiting: Vec<(i64, i64)> = (0..100)
                .flat_map(|id| {
                    let ticks = schedule.waiting(EndpointId(id), now);
                    ticks.map(move |at| (id, at.as_millis()))
                })
                .collect();
            let expected: Vec<(i64, i64)> = (0..100)
                .flat_map(|id| {
                    let first = Grid::new(EndpointId(id), seconds(5)).at_or_after(START);
                    let taken = |at: &i64| {
                        let is_it =
                            |d: &Due| d.endpoint.0 == id && d.scheduled_at.as_millis() == *at;
                        due.iter().any(is_it)
                    };
                    (first..=now.as_millis())
                        .step_by(5_000)
                        .filter(move |at| !taken(at))
                        .map(move |at| (id, at))
                        .collect::<Vec<_>>()
                })
                .collect();
            assert_eq!(waiting, expected);
            more = schedule.take_due(now, 30, &mut due);
        }
        assert_eq!(due.len(), expected_ticks(now));
        assert_eq!(schedule.waiting(EndpointId(100), now).count(), 0);
    }

    fn expected_ticks(now: Timestamp) -> usize {
        let first = |id| Grid::new(EndpointId(id), seconds(5)).at_or_after(START);
        let ticks = |id| (first(id)..=now.as_millis()).step_by(5_000).count();
        (0..100).map(ticks).sum()
    }

    #[test]
    fn a_limit_leaves_the_rest_for_the_next_turn() {
        let mut schedule = Schedule::new(START);
        for id in 0..100 {
            schedule.upsert(EndpointId(id), seconds(5), START);
        }
        let mut due = Vec::new();
        assert!(schedule.take_due(after(5_000), 8, &mut due));
        assert_eq!(due.len(), 8);
        while schedule.take_due(after(4_999), 8, &mut due) {}
        assert_eq!(due.len(), 100);
    }
}
