//! The names and numbers of the API, as text beside this file. A change to any of them is seen here
//! first. Where it is meant, `UPDATE_EXPECT=1 cargo test -p guard-api --test golden` writes it down.
#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

use std::fmt::Write as _;

use expect_test::expect_file;
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, field_descriptor_proto::Label, field_descriptor_proto::Type,
};

/// Clients were compiled against these names and numbers: add to them, and change none.
#[test]
fn the_api_is_the_one_that_clients_know() {
    let set = FileDescriptorSet::decode(guard_api::proto::DESCRIPTORS).unwrap();
    let own = |file: &&FileDescriptorProto| file.package() == "guard.v1";
    let file = set.file.iter().find(own).unwrap();
    let mut text = String::new();
    for service in &file.service {
        for method in &service.method {
            let (name, stream) = (method.name(), method.server_streaming());
            let stream = if stream { "stream " } else { "" };
            let (input, output) = (short(method.input_type()), short(method.output_type()));
            writeln!(text, "{}.{name}({input}) → {stream}{output}", service.name()).unwrap();
        }
    }
    for message in &file.message_type {
        describe_message(&mut text, message);
    }
    for EnumDescriptorProto { name, value, .. } in &file.enum_type {
        writeln!(text, "\n{}", name.as_deref().unwrap()).unwrap();
        for value in value {
            writeln!(text, "  {} {}", value.number(), value.name()).unwrap();
        }
    }
    expect_file!["golden/api.txt"].assert_eq(&text);
}

fn describe_message(text: &mut String, message: &DescriptorProto) {
    writeln!(text, "\n{}", message.name()).unwrap();
    for field in &message.field {
        let of_map = |entry: &&DescriptorProto| field.type_name().ends_with(entry.name());
        let kind = match message.nested_type.iter().find(of_map) {
            Some(entry) => format!("map<{}, {}>", kind(&entry.field[0]), kind(&entry.field[1])),
            None if field.label() == Label::Repeated => format!("repeated {}", kind(field)),
            None if field.proto3_optional() => format!("optional {}", kind(field)),
            None => kind(field),
        };
        let choice = field.oneof_index.filter(|_| !field.proto3_optional());
        let choice = choice.map(|index| message.oneof_decl[usize::try_from(index).unwrap()].name());
        let choice = choice.map(|name| format!(" of {name}")).unwrap_or_default();
        writeln!(text, "  {} {}: {kind}{choice}", field.number(), field.name()).unwrap();
    }
}

fn kind(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => short(field.type_name()).to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn short(name: &str) -> &str {
    name.trim_start_matches('.').trim_start_matches("guard.v1.")
}
