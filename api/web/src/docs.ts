// The page of the OpenAPI description: Swagger UI, from here and from nowhere else.
import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";

SwaggerUI({ url: "/api/openapi.json", dom_id: "#docs", deepLinking: true });
