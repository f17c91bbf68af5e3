// Made by `make fields` from bridge/report/fields.py; not to be edited.

package main

import "strconv"

// A report as documented: strings are strings, times are numbers; extras has what else came.
type report struct {
	MessageID                  string
	TaskID                     string
	From                       string
	To                         string
	OriginPhoneNumber          string
	UserID                     string
	FromUserID                 string
	ParentUserID               string
	FromParentUserID           string
	UserName                   string
	FromUserName               string
	Status                     string
	StatusDescription          string
	Timestamp                  *int64
	ErrorCode                  string
	Error                      string
	ErrorDescription           string
	ConversationID             string
	ConversationType           string
	ConversationExpirationTime *int64
	ConversionExpirationTime   *int64
	MsgFrameType               string
	Type                       string
	TemplateCode               string
	TemplateName               string
	Language                   string
	extras                     []byte
}

// field is where the value of a name is put: a text or a time, neither of another name.
func (r *report) field(name string) (*string, **int64) {
	switch name {
	case "MessageId":
		return &r.MessageID, nil
	case "TaskId":
		return &r.TaskID, nil
	case "From":
		return &r.From, nil
	case "To":
		return &r.To, nil
	case "OriginPhoneNumber":
		return &r.OriginPhoneNumber, nil
	case "UserId":
		return &r.UserID, nil
	case "FromUserId":
		return &r.FromUserID, nil
	case "ParentUserId":
		return &r.ParentUserID, nil
	case "FromParentUserId":
		return &r.FromParentUserID, nil
	case "UserName":
		return &r.UserName, nil
	case "FromUserName":
		return &r.FromUserName, nil
	case "Status":
		return &r.Status, nil
	case "StatusDescription":
		return &r.StatusDescription, nil
	case "Timestamp":
		return nil, &r.Timestamp
	case "ErrorCode":
		return &r.ErrorCode, nil
	case "Error":
		return &r.Error, nil
	case "ErrorDescription":
		return &r.ErrorDescription, nil
	case "ConversationId":
		return &r.ConversationID, nil
	case "ConversationType":
		return &r.ConversationType, nil
	case "ConversationExpirationTime":
		return nil, &r.ConversationExpirationTime
	case "ConversionExpirationTime":
		return nil, &r.ConversionExpirationTime
	case "MsgFrameType":
		return &r.MsgFrameType, nil
	case "Type":
		return &r.Type, nil
	case "TemplateCode":
		return &r.TemplateCode, nil
	case "TemplateName":
		return &r.TemplateName, nil
	case "Language":
		return &r.Language, nil
	}
	return nil, nil
}

func (r *report) texts() []*string {
	return []*string{
		&r.MessageID,
		&r.TaskID,
		&r.From,
		&r.To,
		&r.OriginPhoneNumber,
		&r.UserID,
		&r.FromUserID,
		&r.ParentUserID,
		&r.FromParentUserID,
		&r.UserName,
		&r.FromUserName,
		&r.Status,
		&r.StatusDescription,
		&r.ErrorCode,
		&r.Error,
		&r.ErrorDescription,
		&r.ConversationID,
		&r.ConversationType,
		&r.MsgFrameType,
		&r.Type,
		&r.TemplateCode,
		&r.TemplateName,
		&r.Language,
	}
}

func (r *report) aliases() {
	if r.UserID == "" {
		r.UserID = r.FromUserID
	}
	if r.ParentUserID == "" {
		r.ParentUserID = r.FromParentUserID
	}
	if r.UserName == "" {
		r.UserName = r.FromUserName
	}
	if r.ErrorCode == "" {
		r.ErrorCode = r.Error
	}
	if r.ConversationExpirationTime == nil {
		r.ConversationExpirationTime = r.ConversionExpirationTime
	}
}

func (r *report) members(to []byte, made *made) []byte {
	to = text(append(to, `{"event_id":`...), string(made.id[:]))
	to = text(append(to, `,"message_id":`...), r.MessageID)
	to = text(append(to, `,"task_id":`...), or(r.TaskID, r.MessageID))
	to = strconv.AppendBool(append(to, `,"task_id_defaulted":`...), r.TaskID == "")
	to = text(append(to, `,"sender":`...), r.From)
	to = text(append(to, `,"recipient":`...), r.To)
	to = text(append(to, `,"origin_phone_number":`...), r.OriginPhoneNumber)
	to = text(append(to, `,"user_id":`...), r.UserID)
	to = text(append(to, `,"parent_user_id":`...), r.ParentUserID)
	to = text(append(to, `,"user_name":`...), r.UserName)
	to = text(append(to, `,"status":`...), made.status.symbol)
	to = text(append(to, `,"provider_status":`...), r.Status)
	to = append(append(to, `,"status_rank":`...), made.status.rank)
	to = text(append(to, `,"status_description":`...), r.StatusDescription)
	to = strconv.AppendInt(append(to, `,"message_time":`...), made.sent, 10)
	to = text(append(to, `,"message_time_source":`...), made.source)
	to = strconv.AppendInt(append(to, `,"received_at":`...), made.receivedAt, 10)
	to = text(append(to, `,"error_code":`...), made.code)
	to = text(append(to, `,"error_description":`...), r.ErrorDescription)
	to = text(append(to, `,"error_category":`...), made.meaning.category)
	to = text(append(to, `,"error_retry":`...), made.meaning.retry)
	to = text(append(to, `,"conversation_id":`...), r.ConversationID)
	to = text(append(to, `,"conversation_type":`...), folded(r.ConversationType))
	to = number(append(to, `,"conversation_expires_at":`...), r.ConversationExpirationTime)
	to = text(append(to, `,"message_frame_type":`...), made.frame)
	to = text(append(to, `,"content_type":`...), folded(r.Type))
	to = text(append(to, `,"template_code":`...), r.TemplateCode)
	to = text(append(to, `,"template_name":`...), r.TemplateName)
	to = text(append(to, `,"template_language":`...), r.Language)
	to = text(append(to, `,"extras":`...), made.extras)
	return append(to, '}')
}
