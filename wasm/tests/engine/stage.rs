//! The plans of the models (who runs, for how long, and whether it dies), and how shuttle's tasks follow them.

use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::sync::atomic::AtomicBool;

use crate::harness::World;
use crate::history::Event;

/// A turn: a participant runs for some accesses. `dies`: at the end of them.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub who: usize,
    pub steps: u64,
    pub dies: bool,
}

pub const TO_THE_END: u64 = u64::MAX;

pub fn turn(who: usize, steps: u64) -> Turn {
    Turn { who, steps, dies: false }
}

pub fn death(who: usize, steps: u64) -> Turn {
    Turn { who, steps, dies: true }
}

pub type Plan = Vec<Turn>;

/// The state of one execution, which its tasks share. All tasks run in one thread.
#[derive(Default)]
pub struct Stage {
    /// The participant whose code is running; `None` while code runs that is not part of the play.
    pub current: Cell<Option<usize>>,
    pub plan: RefCell<Plan>,
    pub turn: Cell<usize>,
    /// Accesses left in this turn.
    pub left: Cell<u64>,
    /// Turns that lasted as long as the plan says.
    pub reached: RefCell<Vec<bool>>,
    pub steps: RefCell<Vec<u64>>,
    pub dead: RefCell<Vec<bool>>,
    /// A participant died between an eviction and its count.
    pub cut_off: Cell<bool>,
    pub clock: Cell<u64>,
    pub log: RefCell<Vec<(&'static str, Event)>>,
    /// The seats of each participant, and the world in which its death can be proved.
    pub seats: RefCell<Vec<Vec<u32>>>,
    pub world: RefCell<Option<Arc<World>>>,
    /// Lets shuttle's own schedulers see the accesses, when they choose the order instead of a plan.
    pub chosen: RefCell<Option<Arc<AtomicBool>>>,
    pub probing: Cell<bool>,
    /// Changes that were refused as `Busy` in the last execution.
    pub refused: Cell<u64>,
}

std::thread_local! {
    static STAGE: Rc<Stage> = Rc::default();
}

pub fn stage() -> Rc<Stage> {
    STAGE.with(Rc::clone)
}

/// The payload of a death.
pub struct Death;

impl Stage {
    pub fn set(&self, plan: Plan, participants: usize, world: &Arc<World>) {
        self.current.set(None);
        self.turn.set(0);
        self.left.set(plan.first().map_or(0, |turn| turn.steps));
        *self.reached.borrow_mut() = vec![false; plan.len()];
        *self.plan.borrow_mut() = plan;
        *self.steps.borrow_mut() = vec![0; participants];
        *self.dead.borrow_mut() = vec![false; participants];
        self.cut_off.set(false);
        self.clock.set(0);
        self.refused.set(0);
        *self.chosen.borrow_mut() = self.probing.get().then(|| Arc::new(AtomicBool::new(false)));
        self.log.borrow_mut().clear();
        self.seats.borrow_mut().clear();
        *self.world.borrow_mut() = Some(world.clone());
    }

    pub fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    pub fn next_turn(&self) {
        self.turn.set(self.turn.get() + 1);
        self.left.set(self.plan.borrow().get(self.turn.get()).map_or(TO_THE_END, |turn| turn.steps));
    }

    /// Called before every access to shared memory.
    pub fn access(&self) {
        let Some(me) = self.current.get() else { return };
        self.steps.borrow_mut()[me] += 1;
        let chosen = self.chosen.borrow().clone();
        if let Some(point) = chosen {
            point.load(SeqCst);
            self.current.set(Some(me));
            return;
        }
        let now = self.plan.borrow().get(self.turn.get()).copied();
        let Some(now) = now.filter(|turn| turn.who == me && turn.steps != TO_THE_END) else { return };
        if self.left.get() > 0 {
            self.left.set(self.left.get() - 1);
            return;
        }
        self.reached.borrow_mut()[self.turn.get()] = true;
        self.next_turn();
        if now.dies {
            self.dead.borrow_mut()[me] = true;
            let world = self.world.borrow().clone().unwrap();
            self.seats.borrow()[me].iter().for_each(|seat| world.kill(*seat));
            // Unwinding through the engine has the effect of a kill, because the engine has no destructors.
            resume_unwind(Box::new(Death));
        }
        self.switch(me);
        // When the turn ended here, this access is also the first one of the participant's next turn.
        let again = self.plan.borrow().get(self.turn.get()).copied();
        if again.is_some_and(|turn| turn.who == me && turn.steps != TO_THE_END) {
            self.left.set(self.left.get().saturating_sub(1));
        }
    }

    pub fn switch(&self, me: usize) {
        shuttle::thread::yield_now();
        self.current.set(Some(me));
    }
}

/// A scheduler that follows the plan. Task 0 only starts the others and waits for them.
pub struct Planned<F> {
    pub next: F,
}

impl<F: FnMut() -> Option<Plan>> Scheduler for Planned<F> {
    fn new_execution(&mut self) -> Option<Schedule> {
        let plan = (self.next)()?;
        *stage().plan.borrow_mut() = plan;
        Some(Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], _: Option<TaskId>, _: bool) -> Option<TaskId> {
        let can = |id: TaskId| runnable.iter().any(|task| task.id() == id);
        if can(TaskId::from(0)) {
            return Some(TaskId::from(0));
        }
        let stage = stage();
        loop {
            let turn = stage.plan.borrow().get(stage.turn.get()).copied();
            match turn {
                Some(turn) if can(TaskId::from(turn.who + 1)) => return Some(TaskId::from(turn.who + 1)),
                // The participant has already finished.
                Some(_) => stage.next_turn(),
                None => return runnable.first().map(|task| task.id()),
            }
        }
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}
