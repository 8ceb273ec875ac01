// SPDX-License-Identifier: Apache-2.0
#include "xds/decode/ca_messages.h"

#include "proxy/base/status.h"
#include "xds/wire/ca.pb.h"

namespace weft::xds {
namespace {

constexpr char kImpersonated[] = "ImpersonatedIdentity";

template <typename Proto>
absl::Status Parse(std::string_view bytes, Proto* out) {
  if (bytes.size() <= INT32_MAX &&
      out->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError("the bytes do not parse as " +
                                    out->GetDescriptor()->full_name());
}

}  // namespace

std::string EncodeCertificateRequest(const CertificateRequest& request) {
  istio::v1::auth::IstioCertificateRequest out;
  out.set_csr(request.csr_pem);
  out.set_validity_duration(request.validity_seconds);
  if (!request.impersonated_identity.empty()) {
    (*out.mutable_metadata()->mutable_fields())[kImpersonated].set_string_value(
        request.impersonated_identity);
  }
  return out.SerializeAsString();
}

absl::StatusOr<CertificateRequest> DecodeCertificateRequest(std::string_view bytes) {
  istio::v1::auth::IstioCertificateRequest in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  CertificateRequest out{.csr_pem = in.csr(), .validity_seconds = in.validity_duration()};
  const auto at = in.metadata().fields().find(kImpersonated);
  if (at == in.metadata().fields().end()) return out;
  if (at->second.kind_case() != google::protobuf::Value::kStringValue ||
      at->second.string_value().empty()) {
    return absl::InvalidArgumentError("metadata.ImpersonatedIdentity: is not a text");
  }
  out.impersonated_identity = at->second.string_value();
  return out;
}

std::string EncodeCertificateResponse(const CertificateResponse& response) {
  istio::v1::auth::IstioCertificateResponse out;
  for (const std::string& pem : response.chain_pem) out.add_cert_chain(pem);
  return out.SerializeAsString();
}

absl::StatusOr<CertificateResponse> DecodeCertificateResponse(std::string_view bytes) {
  istio::v1::auth::IstioCertificateResponse in;
  WEFT_RETURN_IF_ERROR(Parse(bytes, &in));
  CertificateResponse out;
  out.chain_pem.assign(in.cert_chain().begin(), in.cert_chain().end());
  return out;
}

}  // namespace weft::xds
