//! Finds the files that an ONNX graph takes weights from.
//!
//! ONNX Runtime opens these files when it loads the graph, so the manifest must list each of them. A graph is a protobuf message. Only
//! the parts of it that can hold tensors are read, without copies or allocations. A part that cannot be parsed is an error.

/// Messages of the ONNX format that can hold tensors.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    Function,
    Training,
    /// A key with its value. The entries of a tensor say where its data are.
    Entry,
}

impl Message {
    /// The kind of message that the field with this number holds in ONNX 1.20; `None` if it holds no tensors.
    fn inner(self, number: u32) -> Option<Self> {
        use Message::*;
        Some(match (self, number) {
            (Model, 7) | (Training, 1 | 2) | (Attribute, 6 | 11) => Graph,
            (Model, 20) => Training,
            (Model, 25) => Function,
            (Graph, 1) | (Function, 7) => Node,
            (Node, 5) | (Function, 11) => Attribute,
            (Graph, 5) | (Attribute, 5 | 10) | (SparseTensor, 1 | 2) => Tensor,
            (Graph, 15) | (Attribute, 22 | 23) => SparseTensor,
            (Tensor, 13) => Entry,
            _ => return None,
        })
    }
}

/// Numbers of other fields that are read.
const OPERATOR: u32 = 4;
const KEY: u32 = 1;
const VALUE: u32 = 2;

/// Largest depth of nested messages, as in protobuf's own readers.
const MAX_DEPTH: usize = 100;

/// Calls `check` with the name of each file that the graph takes weights from.
///
/// # Errors
/// The error of `check`, or the reason why the bytes cannot be used as a graph.
pub(super) fn check_files(graph: &[u8], check: &impl Fn(&[u8]) -> Result<(), String>) -> Result<(), String> {
    walk(graph, Message::Model, MAX_DEPTH, check)
}

fn walk(message: &[u8], kind: Message, depth: usize, check: &impl Fn(&[u8]) -> Result<(), String>) -> Result<(), String> {
    let depth = depth.checked_sub(1).ok_or("its parts are nested too deeply")?;
    let mut is_location = false;
    for field in Fields(message) {
        let (number, value) = field?;
        match kind {
            Message::Node if number == OPERATOR && value == b"EPContext" => {
                return Err("its operator EPContext reads files by itself".into());
            }
            Message::Entry => is_location |= number == KEY && value == b"location",
            _ => {}
        }
        if let Some(inner) = kind.inner(number) {
            walk(value, inner, depth, check)?;
        }
    }
    if is_location {
        // Readers use the last value of a repeated field. All of them are checked.
        let values = Fields(message).filter_map(Result::ok).filter(|&(number, _)| number == VALUE);
        values.map(|(_, value)| value).try_for_each(check)?;
    }
    Ok(())
}

/// Iterates over the fields of a message that hold bytes, as (number, bytes). Other fields are skipped.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, &'a [u8]), String>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            match self.field() {
                Some((number, Some(value))) => return Some(Ok((number, value))),
                Some((_, None)) => {}
                None => {
                    self.0 = &[];
                    return Some(Err("it is not an ONNX graph".into()));
                }
            }
        }
        None
    }
}

impl<'a> Fields<'a> {
    /// Reads the next field. Its value is `None` if it does not hold bytes. Returns `None` if the message is damaged.
    fn field(&mut self) -> Option<(u32, Option<&'a [u8]>)> {
        let tag = u32::try_from(self.number()?).ok()?;
        let value = match tag & 7 {
            0 => self.number().map(|_| None)?,
            1 => self.bytes(8).map(|_| None)?,
            2 => {
                let length = self.number()?;
                Some(self.bytes(usize::try_from(length).ok()?)?)
            }
            5 => self.bytes(4).map(|_| None)?,
            _ => return None,
        };
        Some((tag >> 3, value)).filter(|&(number, _)| number > 0)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Reads a variable-length integer of at most 64 bits: seven bits in each byte, the lowest first.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.bytes(1)?[0];
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A field that holds bytes.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let length = [(value.len() & 0x7f) as u8 | 0x80, (value.len() >> 7) as u8];
        [&[number << 3 | 2], length.as_slice(), value].concat()
    }

    /// The same with a number that takes two bytes.
    fn high_field(number: u16, value: &[u8]) -> Vec<u8> {
        let tag = number << 3 | 2;
        let rest = field(1, value);
        [&[(tag & 0x7f) as u8 | 0x80, (tag >> 7) as u8], &rest[1..]].concat()
    }

    fn entry(key: &str, value: &str) -> Vec<u8> {
        [field(1, key.as_bytes()), field(2, value.as_bytes())].concat()
    }

    fn tensor(location: &str) -> Vec<u8> {
        [field(8, b"weight"), field(13, &entry("offset", "0")), field(13, &entry("location", location))].concat()
    }

    fn model(graph: &[u8]) -> Vec<u8> {
        [vec![8, 10], field(2, b"test"), field(7, graph)].concat()
    }

    fn found(model: &[u8]) -> Result<Vec<String>, String> {
        let names = RefCell::new(Vec::new());
        check_files(model, &|name| {
            names.borrow_mut().push(String::from_utf8_lossy(name).into_owned());
            Ok(())
        })?;
        Ok(names.into_inner())
    }

    #[test]
    fn files_are_found_wherever_tensors_can_be() {
        let node = |attribute: &[u8]| field(1, &[field(4, b"Constant"), field(5, attribute)].concat());
        let graph = [
            field(5, &tensor("initializer")),
            field(15, &[field(1, &tensor("values")), field(2, &tensor("indices"))].concat()),
            node(&field(5, &tensor("attribute"))),
            node(&field(10, &tensor("one of several"))),
            node(&field(6, &field(5, &tensor("in a branch")))),
            node(&field(11, &field(5, &tensor("in one of several branches")))),
            node(&high_field(22, &field(1, &tensor("sparse attribute")))),
            node(&high_field(23, &field(2, &tensor("one of several sparse ones")))),
        ];
        let function = [field(7, &field(5, &field(5, &tensor("in a function")))), field(11, &field(5, &tensor("a function's default")))];
        let training = [field(1, &field(5, &tensor("initialization"))), field(2, &field(5, &tensor("algorithm")))];
        let model = [model(&graph.concat()), high_field(25, &function.concat()), high_field(20, &training.concat())].concat();
        let expected = [
            "initializer",
            "values",
            "indices",
            "attribute",
            "one of several",
            "in a branch",
            "in one of several branches",
            "sparse attribute",
            "one of several sparse ones",
            "in a function",
            "a function's default",
            "initialization",
            "algorithm",
        ];
        assert_eq!(found(&model).unwrap(), expected);
    }

    #[test]
    fn no_order_of_keys_and_values_hides_a_file() {
        let reversed = [field(2, b"first"), field(2, b"last"), field(1, b"offset"), field(1, b"location")].concat();
        assert_eq!(found(&model(&field(5, &field(13, &reversed)))).unwrap(), ["first", "last"]);
    }

    #[test]
    fn what_is_no_graph_or_reads_files_by_itself_is_refused() {
        let whole = model(&field(5, &tensor("weights")));
        // The first two fields, of 9 bytes, are a model without a graph.
        (10..whole.len()).for_each(|length| assert!(found(&whole[..length]).is_err(), "{length} of {} bytes", whole.len()));
        let reads = model(&field(1, &field(4, b"EPContext")));
        assert!(found(&reads).unwrap_err().contains("EPContext"));
        // A group, the number 0, a tag of more than 32 bits, a number of more than 64 bits, a length beyond the end.
        let odd: [&[u8]; 5] = [&[0x0b], &[0x02, 0], &[0xba, 0x80, 0x80, 0x80, 0x10, 0], &[0xff; 11], &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x7f]];
        for bytes in odd {
            assert_eq!(found(bytes).unwrap_err(), "it is not an ONNX graph", "{bytes:x?}");
        }
        // As deep as the bytes go.
        let mut deep = field(5, &tensor("weights"));
        for _ in 0..60 {
            deep = field(1, &field(5, &field(6, &deep)));
        }
        assert!(found(&model(&deep)).is_err());
    }
}
