//! What the model lets a crash leave.

use super::*;

fn model() -> Model {
    let mut model = Model::new(2, 3);
    run(&mut model, 0, 5, |model| model.create("f", 12));
    run(&mut model, 10, 5, |model| model.write("f", 0, &[7; 1024], How::Direct));
    let promise = model.promise_file("f");
    model.kept(promise, 20);
    run(&mut model, 20, 6, |model| model.write("f", 512, &[9; 1024], How::Direct));
    model
}

fn run(model: &mut Model, events: usize, tid: u32, change: impl Fn(&mut Model)) {
    let op = model.begin(events, "something".into(), tid);
    model.ended(op, tid);
    change(model);
}

fn check(events: usize, data: &[u8]) -> Result<(), String> {
    let model = model();
    let expectation = model.expectation(events);
    expectation.check_file(&model.files[0], data, 1024)
}

#[test]
fn old_new_and_nothing_else() {
    assert!(check(15, &[]).is_ok());
    assert!(check(15, &[7; 1024]).is_ok());
    assert!(check(15, &[0; 1024]).is_err(), "new size, old data");
    assert!(check(19, &[7; 512]).is_err(), "a size that nobody set");
    assert!(check(20, &[]).is_err(), "acknowledged");
    assert!(check(20, &[7; 1024]).is_ok());
    assert!(check(25, &[[7; 512], [9; 512]].concat()).is_ok(), "torn");
    assert!(check(25, &[[7; 512], [9; 512], [9; 512]].concat()).is_ok());
    assert!(check(25, &[[7; 512], [9; 512], [0; 512]].concat()).is_err());
    assert!(check(25, &[[7; 512], [8; 512], [9; 512]].concat()).is_err(), "foreign");
    assert!(check(25, &[[0; 512], [9; 512], [9; 512]].concat()).is_err(), "lost");
}

#[test]
fn names_in_order() {
    let mut model = model();
    run(&mut model, 30, 7, |model| model.mkdir("d", 13));
    run(&mut model, 40, 8, |model| model.rename("f", "d/g"));
    assert_eq!(model.expectation(25).versions, 1..2, "the file's name is acknowledged with it");
    assert_eq!(model.expectation(50).versions, 1..4);
    assert_eq!(model.expectation(50).at_end_of(7).versions, 2..3, "the version of that transaction alone");
    assert!(model.expectation(50).at_end_of(4).versions.is_empty(), "what was acknowledged is not there");
    assert_eq!(model.get("").map(|root| root.links), Some(4));
    assert!(model.get("f").is_none() && model.get("d/g").is_some());
}

/// What was logged, all or nothing, in transaction 6, after something else in transaction 5.
fn check_logged(how: How, tid: i64, data: &[u8]) -> Result<(), String> {
    let mut model = model();
    run(&mut model, 30, 6, |model| model.write("f", 0, &[5; 1536], how));
    let expectation = model.expectation(35).at_end_of(tid);
    expectation.check_file(&model.files[0], data, 1024)
}

#[test]
fn what_is_logged_goes_with_its_transaction() {
    let old = [[7; 512], [9; 512], [9; 512]].concat();
    let part = [[5; 512], [9; 512], [9; 512]].concat();
    for how in [How::Logged, How::Atomic] {
        assert!(check_logged(how, 5, &old[..1024]).is_ok());
        assert!(check_logged(how, 5, &[5; 1536]).is_err(), "not there yet");
        assert!(check_logged(how, 6, &[5; 1536]).is_ok());
        assert!(check_logged(how, 6, &old).is_err(), "lost");
        assert!(check_logged(how, 6, &part).is_err());
    }
}

#[test]
fn all_of_an_atomic_write_or_nothing() {
    let mut model = model();
    let op = model.begin(30, "an atomic write".into(), 6);
    model.write("f", 0, &[5; 1536], How::Atomic);
    // It may be in either transaction.
    model.ended(op, 7);
    let check = |data: &[u8]| model.expectation(35).at_end_of(6).check_file(&model.files[0], data, 1024);
    assert!(check(&[[7; 512], [9; 512], [9; 512]].concat()).is_ok());
    assert!(check(&[5; 1536]).is_ok());
    assert!(check(&[[5; 512], [9; 512], [9; 512]].concat()).is_err());
    assert!(check(&[[7; 512], [9; 512], [5; 512]].concat()).is_err());
}

#[test]
fn what_moves_takes_its_writes_along() {
    let mut model = Model::new(2, 3);
    run(&mut model, 0, 5, |model| model.create("f", 12));
    let data: Vec<u8> = (1..=4).flat_map(|n| [n; 1024]).collect();
    run(&mut model, 10, 5, |model| model.write("f", 0, &data, How::Direct));
    let promise = model.promise_file("f");
    model.kept(promise, 20);
    run(&mut model, 20, 6, |model| model.collapse("f", 1024..2048));
    run(&mut model, 30, 6, |model| model.write("f", 1024, &[9; 1024], How::Direct));
    let check = |tid: i64, blocks: &[u8]| {
        let data: Vec<u8> = blocks.iter().flat_map(|&n| [n; 1024]).collect();
        model.expectation(35).at_end_of(tid).check_file(&model.files[0], &data, 1024)
    };
    assert!(check(5, &[1, 2, 3, 4]).is_ok());
    assert!(check(5, &[1, 2, 9, 4]).is_ok(), "written in place, and not moved yet");
    assert!(check(5, &[1, 9, 3, 4]).is_err(), "what was taken out was not written to");
    assert!(check(5, &[1, 3, 4]).is_err(), "not moved yet");
    assert!(check(6, &[1, 3, 4]).is_ok());
    assert!(check(6, &[1, 9, 4]).is_ok());
    assert!(check(6, &[1, 2, 3, 4]).is_err(), "moved");
    assert!(check(6, &[1, 9, 3]).is_err());
}
