//! An agent that knows no more than the descriptors of its API.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::stream::{self, Iter};
use guard_api::proto;
use prost::{
    Message as _,
    bytes::{Buf as _, BufMut as _},
    encoding,
};
use prost_types::{
    DescriptorProto, Duration, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    Timestamp,
    field_descriptor_proto::{Label, Type},
};
use tonic::{
    Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService},
    service::Routes,
};

/// Answers every call of every service.
#[derive(Clone, Copy)]
pub(crate) struct Canned {
    /// Each field is set; else none is.
    pub whole: bool,
}

/// One of the API's services, by its place among them.
#[derive(Clone, Copy)]
struct OneService<const N: usize>(Canned);

const SERVICES: [&str; 6] = [
    "guard.v1.Leases",
    "guard.v1.Pools",
    "guard.v1.Subnets",
    "guard.v1.Interfaces",
    "guard.v1.Guard",
    "guard.v1.Admin",
];

impl Canned {
    pub(crate) fn routes(self) -> Routes {
        Routes::new(OneService::<0>(self))
            .add_service(OneService::<1>(self))
            .add_service(OneService::<2>(self))
            .add_service(OneService::<3>(self))
            .add_service(OneService::<4>(self))
            .add_service(OneService::<5>(self))
    }

    /// The messages that a method answers: of a stream, one for each subject that there is, and an
    /// empty one.
    fn messages(self, path: &str) -> Vec<Vec<u8>> {
        let file = file();
        let (service, method) = path.trim_start_matches("/guard.v1.").split_once('/').unwrap();
        let service = file.service.iter().find(|known| known.name() == service).unwrap();
        let method = service.method.iter().find(|known| known.name() == method).unwrap();
        let output = message(&file, method.output_type());
        let choices = output.field.iter().filter(|field| is_choice(field)).count();
        match (self.whole, method.server_streaming()) {
            (true, true) => {
                (0..choices.max(1)).map(|choice| filled(&file, output, choice)).collect()
            }
            (true, false) => vec![filled(&file, output, 0)],
            (false, _) => vec![vec![]],
        }
    }
}

fn file() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap();
    set.file.into_iter().find(|file| file.package() == "guard.v1").unwrap()
}

fn message<'a>(file: &'a FileDescriptorProto, name: &str) -> &'a DescriptorProto {
    let name = name.trim_start_matches(".guard.v1.");
    file.message_type.iter().find(|message| message.name() == name).unwrap()
}

/// One of several of which a message has one at most.
fn is_choice(field: &FieldDescriptorProto) -> bool {
    field.oneof_index.is_some() && !field.proto3_optional()
}

/// A message in which each field is set, except for the token of a next page. A list has one element
/// that is empty and one that is whole; texts are the names of their fields, numbers come from theirs.
fn filled(file: &FileDescriptorProto, message: &DescriptorProto, choice: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut choices = 0;
    for field in message.field.iter().filter(|field| field.name() != "next_page_token") {
        choices += usize::from(is_choice(field));
        if is_choice(field) && choices != choice + 1 {
            continue;
        }
        fill(file, message, field, &mut bytes);
    }
    bytes
}

fn fill(
    file: &FileDescriptorProto,
    message: &DescriptorProto,
    field: &FieldDescriptorProto,
    bytes: &mut Vec<u8>,
) {
    let tag = u32::try_from(field.number()).unwrap();
    let number = 7000 + i32::try_from(tag).unwrap();
    let value = u64::try_from(number).unwrap();
    match field.r#type() {
        Type::String => encoding::string::encode(tag, &field.name().to_owned(), bytes),
        Type::Bytes => encoding::bytes::encode(tag, &field.name().as_bytes().to_vec(), bytes),
        Type::Bool => encoding::bool::encode(tag, &true, bytes),
        Type::Double => encoding::double::encode(tag, &0.25, bytes),
        Type::Int32 => encoding::int32::encode(tag, &number, bytes),
        Type::Uint32 => encoding::uint64::encode(tag, &value, bytes),
        // More than a double can tell from its neighbours.
        Type::Uint64 => encoding::uint64::encode(tag, &(value << 50 | 1), bytes),
        Type::Enum => {
            let name = field.type_name().trim_start_matches(".guard.v1.");
            let all = file.enum_type.iter().find(|known| known.name() == name).unwrap();
            encoding::int32::encode(tag, &all.value.last().unwrap().number(), bytes);
        }
        Type::Message => {
            if field.label() == Label::Repeated {
                encoding::bytes::encode(tag, &Vec::new(), bytes);
            }
            encoding::bytes::encode(tag, &submessage(file, message, field), bytes);
        }
        other => unreachable!("{}: add the type {other:?}", field.name()),
    }
}

fn submessage(
    file: &FileDescriptorProto,
    parent: &DescriptorProto,
    field: &FieldDescriptorProto,
) -> Vec<u8> {
    let seconds = 86_400 * i64::from(field.number());
    let nanos = 250_000_000;
    match field.type_name() {
        ".google.protobuf.Timestamp" => Timestamp { seconds, nanos }.encode_to_vec(),
        ".google.protobuf.Duration" => Duration { seconds, nanos }.encode_to_vec(),
        name => {
            let entry = parent.nested_type.iter().find(|entry| name.ends_with(entry.name()));
            filled(file, entry.unwrap_or_else(|| message(file, name)), 0)
        }
    }
}

impl<const N: usize> NamedService for OneService<N> {
    const NAME: &'static str = SERVICES[N];
}

impl<const N: usize> Service<http::Request<Body>> for OneService<N> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let messages = self.0.messages(request.uri().path());
        let answer = tower::service_fn(move |_| {
            let messages: Iter<_> = stream::iter(messages.clone().into_iter().map(Ok));
            async { Ok::<_, Status>(Response::new(messages)) }
        });
        // On the wire, one answer is a stream of one.
        Box::pin(async { Ok(Grpc::new(Raw).server_streaming(answer, request).await) })
    }
}

/// Requests are ignored, and answers are bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, bytes: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        bytes.advance(bytes.remaining());
        Ok(Some(()))
    }
}
