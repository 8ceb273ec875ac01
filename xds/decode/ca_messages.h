// SPDX-License-Identifier: Apache-2.0
// Messages of Istio's certificate service as plain values, for the node that asks and the CA that
// answers. Any thread. Here rather than in xds/client because control/plane, which answers, does
// not use the client.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace weft::xds {

inline constexpr std::string_view kCreateCertificatePath =
    "/istio.v1.auth.IstioCertificateService/CreateCertificate";

struct CertificateRequest {
  std::string csr_pem;
  int64_t validity_seconds = 0;
  std::string impersonated_identity;  // metadata.ImpersonatedIdentity; empty: the caller's own
};
struct CertificateResponse {
  std::vector<std::string> chain_pem;  // leaf first, root last, one certificate an element
};

std::string EncodeCertificateRequest(const CertificateRequest& request);
absl::StatusOr<CertificateRequest> DecodeCertificateRequest(std::string_view bytes);
std::string EncodeCertificateResponse(const CertificateResponse& response);
absl::StatusOr<CertificateResponse> DecodeCertificateResponse(std::string_view bytes);

}  // namespace weft::xds
