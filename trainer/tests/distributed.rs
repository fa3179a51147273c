//! Groups of processes: this test program starts itself several times, as torchrun would.

use anatomix_trainer::distributed::{C10dError, Distributed, Group, Peers, Place, Shards};
use anyhow::{Context, Result};
use std::net::TcpListener;
use std::ops::Range;
use std::process::{Child, Command, Output, Stdio};
use tch::{Device, Kind, Tensor};

/// Says which function of [`process`] a process runs.
const WORK: &str = "ANATOMIX_TEST_WORK";

fn start(work: &str, processes: usize) -> Vec<Child> {
    start_some(work, 0..processes, processes)
}

/// Starts those of the processes that have these ranks.
fn start_some(work: &str, ranks: Range<usize>, processes: usize) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process", "--ignored", "--nocapture"]).env(WORK, work).env("OMP_NUM_THREADS", "1");
        command.env("RANK", rank.to_string()).env("WORLD_SIZE", processes.to_string());
        command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    ranks.map(start).collect()
}

#[test]
fn processes_compute_together() {
    let ended: Vec<Output> = start("calls", 3).into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let said = |output: &Output| [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
    let failed: Vec<String> = ended.iter().filter(|output| !output.status.success()).map(said).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn who_does_not_come_is_named() {
    // Ranks 1 and 2 are not started; then rank 0, which holds the store, is not.
    for (ranks, words) in [(0..1, "no process of rank 1, 2 came to 127.0.0.1:"), (1..2, "MASTER_ADDR = 127.0.0.1, MASTER_PORT = ")] {
        for child in start_some("alone", ranks, 3) {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
            assert!(said.contains(words) && said.contains("join_timeout"), "{said}");
        }
    }
}

#[test]
#[ignore = "a process of the other tests"]
fn process() {
    let place = Place::of_process().unwrap().expect("the other tests start it");
    if std::env::var(WORK).unwrap() == "alone" {
        let settings = Distributed { join_timeout: 2, ..Distributed::default() };
        println!("{:#}", Group::join(place, Device::Cpu, settings).unwrap_err());
        return;
    }
    let group = Group::join(place, Device::Cpu, Distributed { bucket: 1, timeout: 60, ..Distributed::default() }).unwrap();
    let peers = Peers::of(Some(&group));
    match std::env::var(WORK).unwrap().as_str() {
        "calls" => sums(peers).and_then(|()| gradients(peers)).and_then(|()| shards(peers)).unwrap(),
        "end" => {
            if peers.rank() == 1 {
                peers.sums([1.0]).unwrap();
                std::process::abort();
            }
            let error = peers.sums([1.0]).and_then(|_| peers.sums([2.0])).unwrap_err();
            assert!(error.is::<C10dError>());
            println!("{:#}", group.explain(error));
        }
        other => panic!("there is no work {other}"),
    }
}

/// Values are summed and gathered, with and without gradients.
fn sums(peers: Peers) -> Result<()> {
    let (rank, count) = (peers.rank() as i64, peers.count() as i64);
    let all: i64 = (0..count).sum();
    assert_eq!(peers.sums([rank as f64, 1.0])?, [all as f64, count as f64]);
    assert!(peers.any(rank == 1)? && !peers.any(false)?);
    assert!(!peers.of_first(rank == 1)? && peers.of_first(rank == 0)?);

    // Rows: as many as the rank, so that the first process has none.
    let own = Tensor::full([rank, 2], rank, (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let rows = peers.rows(&own)?;
    let expected: Vec<f32> = (0..count).flat_map(|r| vec![r as f32; 2 * r as usize]).collect();
    assert_eq!(Vec::<f32>::try_from(rows.detach().flatten(0, -1))?, expected);
    rows.square().sum(Kind::Float).backward();
    if rank > 0 {
        assert_eq!(own.grad(), &own.detach() * 2.0);
    }

    // y is the sum of x of all processes; each has the loss rank * y, so that the gradient is the sum of ranks.
    let x = Tensor::from_slice(&[rank as f32 + 1.0]).set_requires_grad(true);
    let y = peers.sum_with_gradient(&x);
    assert_eq!(y.double_value(&[0]), (all + count) as f64);
    (y * rank as f64).sum(Kind::Float).backward();
    assert_eq!(x.grad().double_value(&[0]), all as f64);

    let kernel = Tensor::full([2, 3, 3, 3], rank, (Kind::Float, Device::Cpu)).permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    peers.broadcast(&[kernel.shallow_clone()])?;
    assert_eq!(kernel.abs().sum(Kind::Float).double_value(&[]), 0.0);
    Ok(())
}

/// Gradients are sums over all processes. There are parameters larger than a bucket, one that is used twice, one that some processes do not
/// use, one that nobody uses, and a kernel with its channels innermost.
fn gradients(peers: Peers) -> Result<()> {
    let options = (Kind::Float, Device::Cpu);
    tch::manual_seed(1);
    let last = |x: Tensor| x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    let trained = |x: Tensor| x.detach().set_requires_grad(true);
    let make = || {
        let big = (0..3).map(|_| Tensor::randn([600, 600], options) * 0.02);
        big.chain([Tensor::randn([4, 3, 3, 3], options), Tensor::randn([600], options), Tensor::randn([5], options)]).collect::<Vec<_>>()
    };
    let values = make();
    let parameters = |values: &[Tensor]| -> Vec<Tensor> {
        values.iter().map(|x| trained(if x.dim() == 4 { last(x.copy()) } else { x.copy() })).collect()
    };
    let loss = |p: &[Tensor], x: &Tensor, extra: bool| {
        let hidden = x.matmul(&p[0]).tanh().matmul(&p[1]).tanh().matmul(&p[0]).matmul(&p[2]);
        let picture = x.narrow(1, 0, 75).reshape([-1, 3, 5, 5]).conv2d(&p[3], None::<&Tensor>, [1, 1], [0, 0], [1, 1], 1);
        let loss = hidden.square().mean(Kind::Float) + picture.square().mean(Kind::Float);
        if extra { loss + (hidden * &p[4]).mean(Kind::Float) } else { loss }
    };
    let own = parameters(&values);
    let sums = peers.gradients(&own)?.context("there are others")?;
    let alone = parameters(&values);
    for step in 0..4 {
        let x: Vec<Tensor> = (0..peers.count()).map(|_| Tensor::randn([2, 600], options)).collect();
        for mut parameter in own.iter().chain(&alone).map(Tensor::shallow_clone) {
            parameter.zero_grad();
        }
        // Two backward passes, as with accumulated gradients.
        sums.begin()?;
        loss(&own, &x[peers.rank()], false).backward();
        loss(&own, &x[peers.rank()], peers.rank() == 1).backward();
        sums.finish()?;
        for (rank, x) in x.iter().enumerate() {
            loss(&alone, x, false).backward();
            loss(&alone, x, rank == 1).backward();
        }
        for (number, (found, expected)) in own.iter().zip(&alone).enumerate() {
            assert_eq!(found.grad().defined(), number < 5, "parameter {number}");
            if found.grad().defined() {
                let difference = (found.grad() - expected.grad()).abs().max().double_value(&[]);
                let scale = expected.grad().abs().max().double_value(&[]);
                assert!(scale > 0.0 && difference < 1e-5 * scale, "parameter {number} in step {step}: {difference} of {scale}");
                assert_eq!(found.grad().stride(), expected.grad().stride(), "parameter {number}");
            }
        }
    }
    sums.begin()?;
    for _ in 0..3 {
        loss(&own, &Tensor::ones([2, 600], options), true).backward();
    }
    let error = sums.finish().unwrap_err().to_string();
    assert!(error.contains("more often than in the first step; set overlap = false"), "{error}");
    Ok(())
}

/// Updated values and moments are exchanged.
fn shards(peers: Peers) -> Result<()> {
    let sizes = [10, 1, 7000];
    let shards = Shards::new(&sizes, peers.count());
    let parameters: Vec<Tensor> = sizes.iter().map(|&size| Tensor::full([size], -1, (Kind::Float, Device::Cpu))).collect();
    let own = shards.of_process(peers.rank());
    for (index, range) in &own {
        let _ = parameters[*index].narrow(0, range.start, range.end - range.start).fill_(peers.rank() as f64);
    }
    shards.exchange(peers, &parameters)?;
    let pieces: Vec<Tensor> = own.iter().map(|(index, range)| parameters[*index].narrow(0, range.start, range.end - range.start)).collect();
    let whole = shards.collect(peers, &Tensor::cat(&pieces, 0))?;
    assert_eq!(whole.len(), if peers.is_first() { 3 } else { 0 });
    for rank in 0..peers.count() {
        for (index, range) in shards.of_process(rank) {
            for values in [Some(&parameters[index]), whole.get(index)].into_iter().flatten() {
                let part = values.narrow(0, range.start, range.end - range.start);
                assert_eq!(part.eq(rank as i64).all().int64_value(&[]), 1, "parameter {index} of process {rank}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_process_that_ends_is_named_by_the_others() {
    let ended: Vec<Output> = start("end", 3).into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    assert!(!ended[1].status.success());
    for output in [&ended[0], &ended[2]] {
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("rank 1 on ") && said.contains("ended without a message"), "{said}");
        assert!(!said.contains("rank 2 on") || !said.contains("rank 0 on"), "{said}");
    }
}
