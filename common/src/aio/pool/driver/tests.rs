use super::super::coroutine::Chunk;
use super::*;
use testkit::isolated;

async fn nothing() {}

fn task(id: u64) -> Task {
    let (end, _) = oneshot::channel();
    Task {
        id,
        entry: Chunk::entry::<_, ()>(nothing).unwrap(),
        args: Vec::new(),
        departures: Departures::default(),
        calls: 1,
        retries: 0,
        end,
        permit: None,
    }
}

/// With one worker, which never says anything by itself.
fn driver() -> Driver {
    let settings = Settings {
        workers: 1,
        threads: 1,
        in_flight: 10,
        task_timeout: None,
        hard_timeout: Some(Duration::from_secs(3_600)),
    };
    let (events, _) = mpsc::unbounded_channel();
    let hosts = Arc::new(pool::Pool::new(1).unwrap());
    Driver::new(settings, String::new(), 0, hosts, events)
}

#[test]
fn deadlines_are_those_of_the_chunks_that_are_out() {
    isolated(|| {
        let mut driver = driver();
        driver.send(task(0), 0);
        for id in 1..=100 {
            driver.send(task(id), 0);
            driver.done(0, id, Ok(Vec::new()));
        }
        // The first has not come back, and its deadline is far.
        assert_eq!(driver.sent.len(), 1);
        assert_eq!(driver.deadlines.len(), 1);
        driver.done(0, 0, Ok(Vec::new()));
        assert!(driver.deadlines.is_empty());
    });
}
